/* Threads that share the iterations of a loop, and sleep between loops: a pool of its own for each
 * instance of a network, so that instances have nothing in common that two threads could touch.
 *
 * TVM's kernels call `pool_launch` through a function pointer, with the body of a loop that is to
 * run once for each of `tasks` task numbers. Whose loop it is, they cannot say: the thread that
 * runs a network knows its pool.
 */
#ifndef MODEL_POOL_H
#define MODEL_POOL_H

#include <pthread.h>
#include <stdint.h>

/* Bytes of a thread's stack: kernels gather up to 128 KiB on it, and bands of up to 64. */
#define POOL_STACK (512 * 1024)

/* TVM's TVMParallelGroupEnv. */
typedef struct {
    void *sync_handle;
    int32_t tasks;
} pool_environment;

/* TVM's FTVMParallelLambda: 0 is success. */
typedef int (*pool_body)(int task, pool_environment *environment, void *data);

struct pool;

typedef struct {
    struct pool *pool;
    pthread_t thread;
    int number;     /* its task in each loop; the caller's is 0 */
    unsigned since; /* the last round that it knows of */
} pool_worker;

typedef struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    unsigned round; /* goes up with every loop */
    int count;      /* workers: threads besides the caller's */
    int pending;    /* workers that have not finished this round */
    int stop, status;
    pool_body body;
    void *data;
    pool_environment environment;
    pool_worker workers[MODEL_MAX_THREADS - 1];
} pool;

/* The pool of the network that this thread runs. In the thread's own block from the start: other
 * models of thread-local memory may allocate at the first use in each thread. */
static __thread pool *pool_current __attribute__((tls_model("initial-exec")));

static void pool_open(pool *own)
{
    pthread_mutex_init(&own->lock, NULL);
    pthread_cond_init(&own->work, NULL);
    pthread_cond_init(&own->done, NULL);
    own->round = 0;
    own->count = own->stop = 0;
}

static void *pool_work(void *argument)
{
    pool_worker *worker = argument;
    pool *own = worker->pool;
    pthread_mutex_lock(&own->lock);
    for (;;) {
        while (own->round == worker->since && !own->stop)
            pthread_cond_wait(&own->work, &own->lock);
        if (own->stop)
            break;
        worker->since = own->round;
        pthread_mutex_unlock(&own->lock);
        int status = own->body(worker->number, &own->environment, own->data);
        pthread_mutex_lock(&own->lock);
        own->status |= status;
        if (--own->pending == 0)
            pthread_cond_signal(&own->done);
    }
    pthread_mutex_unlock(&own->lock);
    return NULL;
}

static int pool_launch(pool_body body, void *data, int tasks)
{
    pool *own = pool_current;
    (void)tasks; /* 0: as many as there are threads */
    if (!own || own->count == 0) {
        pool_environment alone = {NULL, 1};
        return body(0, &alone, data);
    }
    pthread_mutex_lock(&own->lock);
    own->body = body;
    own->data = data;
    own->environment = (pool_environment){NULL, own->count + 1};
    own->pending = own->count;
    own->status = 0;
    own->round++;
    pthread_cond_broadcast(&own->work);
    pthread_mutex_unlock(&own->lock);
    int status = body(0, &own->environment, data);
    pthread_mutex_lock(&own->lock);
    while (own->pending)
        pthread_cond_wait(&own->done, &own->lock);
    status |= own->status;
    pthread_mutex_unlock(&own->lock);
    return status;
}

static void pool_stop(pool *own)
{
    pthread_mutex_lock(&own->lock);
    own->stop = 1;
    pthread_cond_broadcast(&own->work);
    pthread_mutex_unlock(&own->lock);
    for (int i = 0; i < own->count; i++)
        pthread_join(own->workers[i].thread, NULL);
    own->count = own->stop = 0;
}

/* Return whether there are that many threads now; if not, there is one. */
static int pool_start(pool *own, int threads)
{
    pthread_attr_t attributes;
    pool_stop(own);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POOL_STACK);
    while (own->count + 1 < threads) {
        pool_worker *worker = &own->workers[own->count];
        *worker = (pool_worker){.pool = own, .number = own->count + 1, .since = own->round};
        if (pthread_create(&worker->thread, &attributes, pool_work, worker))
            break;
        own->count++;
    }
    pthread_attr_destroy(&attributes);
    if (own->count + 1 == threads)
        return 1;
    pool_stop(own);
    return 0;
}

static void pool_close(pool *own)
{
    pool_stop(own);
    pthread_cond_destroy(&own->done);
    pthread_cond_destroy(&own->work);
    pthread_mutex_destroy(&own->lock);
}

#endif
