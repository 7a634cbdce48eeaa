/* A pool of threads that share the iterations of a loop, and sleep between loops. Each instance of
 * a network has its own pool, so that instances share no data between threads.
 *
 * TVM's kernels call `pool_launch` through a function pointer, with the body of a loop that runs
 * once for each of `tasks` task numbers. The call does not name a pool: the thread that runs a
 * network stores its pool in `pool_current`.
 */
#ifndef MODEL_POOL_H
#define MODEL_POOL_H

#include <pthread.h>
#include <stdint.h>

/* Bytes of a thread's stack: kernels put up to 128 KiB of input and bands of up to 64 KiB on it. */
#define POOL_STACK (512 * 1024)

/* TVM's TVMParallelGroupEnv. */
typedef struct {
    void *sync_handle;
    int32_t tasks;
} pool_environment;

/* TVM's FTVMParallelLambda; returns 0 on success. */
typedef int (*pool_body)(int task, pool_environment *environment, void *data);

struct pool;

typedef struct {
    struct pool *pool;
    pthread_t thread;
    int number;     /* its task in each loop; the caller has task 0 */
    unsigned since; /* the last round that it has started */
} pool_worker;

typedef struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    unsigned round; /* incremented with every loop */
    int count;      /* workers, without the caller's thread */
    int pending;    /* workers that have not finished this round */
    int stop, status;
    pool_body body;
    void *data;
    pool_environment environment;
    pool_worker workers[MODEL_MAX_THREADS - 1];
} pool;

/* The pool of the network that this thread runs. In the initial TLS block: other TLS models may
 * allocate at the first use in each thread. */
static __thread pool *pool_current __attribute__((tls_model("initial-exec")));

static void pool_open(pool *self)
{
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->work, NULL);
    pthread_cond_init(&self->done, NULL);
    self->round = 0;
    self->count = self->stop = 0;
}

static void *pool_work(void *argument)
{
    pool_worker *worker = argument;
    pool *self = worker->pool;
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (self->round == worker->since && !self->stop)
            pthread_cond_wait(&self->work, &self->lock);
        if (self->stop)
            break;
        worker->since = self->round;
        pthread_mutex_unlock(&self->lock);
        int status = self->body(worker->number, &self->environment, self->data);
        pthread_mutex_lock(&self->lock);
        self->status |= status;
        if (--self->pending == 0)
            pthread_cond_signal(&self->done);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static int pool_launch(pool_body body, void *data, int tasks)
{
    pool *self = pool_current;
    (void)tasks; /* TVM passes 0: one task per thread */
    if (!self || self->count == 0) {
        pool_environment alone = {NULL, 1};
        return body(0, &alone, data);
    }
    pthread_mutex_lock(&self->lock);
    self->body = body;
    self->data = data;
    self->environment = (pool_environment){NULL, self->count + 1};
    self->pending = self->count;
    self->status = 0;
    self->round++;
    pthread_cond_broadcast(&self->work);
    pthread_mutex_unlock(&self->lock);
    int status = body(0, &self->environment, data);
    pthread_mutex_lock(&self->lock);
    while (self->pending)
        pthread_cond_wait(&self->done, &self->lock);
    status |= self->status;
    pthread_mutex_unlock(&self->lock);
    return status;
}

static void pool_stop(pool *self)
{
    pthread_mutex_lock(&self->lock);
    self->stop = 1;
    pthread_cond_broadcast(&self->work);
    pthread_mutex_unlock(&self->lock);
    for (int i = 0; i < self->count; i++)
        pthread_join(self->workers[i].thread, NULL);
    self->count = self->stop = 0;
}

/* Start threads; return whether all could be started. If not, only the caller's thread remains. */
static int pool_start(pool *self, int threads)
{
    pthread_attr_t attributes;
    pool_stop(self);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POOL_STACK);
    while (self->count + 1 < threads) {
        pool_worker *worker = &self->workers[self->count];
        *worker = (pool_worker){.pool = self, .number = self->count + 1, .since = self->round};
        if (pthread_create(&worker->thread, &attributes, pool_work, worker))
            break;
        self->count++;
    }
    pthread_attr_destroy(&attributes);
    if (self->count + 1 == threads)
        return 1;
    pool_stop(self);
    return 0;
}

static void pool_close(pool *self)
{
    pool_stop(self);
    pthread_cond_destroy(&self->done);
    pthread_cond_destroy(&self->work);
    pthread_mutex_destroy(&self->lock);
}

#endif
