/* Threads that share the iterations of a loop, and sleep between loops.
 *
 * TVM's kernels call `pool_launch` through a function pointer, with the body of a loop that is to
 * run once for each of `tasks` task numbers.
 */
#ifndef MODEL_POOL_H
#define MODEL_POOL_H

#include <pthread.h>
#include <stdint.h>

/* Bytes of a thread's stack: kernels gather up to 128 KiB on it. */
#define POOL_STACK (512 * 1024)

/* TVM's TVMParallelGroupEnv. */
typedef struct {
    void *sync_handle;
    int32_t tasks;
} pool_environment;

/* TVM's FTVMParallelLambda: 0 is success. */
typedef int (*pool_body)(int task, pool_environment *environment, void *data);

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t threads[MODEL_MAX_THREADS];
    unsigned round;     /* goes up with every loop */
    unsigned since[MODEL_MAX_THREADS]; /* the last round that each thread knows of */
    int workers;        /* threads besides the caller's */
    int pending;        /* workers that have not finished this round */
    int stop, status;
    pool_body body;
    void *data;
    pool_environment environment;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
          .work = PTHREAD_COND_INITIALIZER,
          .done = PTHREAD_COND_INITIALIZER};

static void *pool_work(void *argument)
{
    int worker = (int)(intptr_t)argument;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.round == pool.since[worker] && !pool.stop)
            pthread_cond_wait(&pool.work, &pool.lock);
        if (pool.stop)
            break;
        pool.since[worker] = pool.round;
        pthread_mutex_unlock(&pool.lock);
        int status = pool.body(worker, &pool.environment, pool.data);
        pthread_mutex_lock(&pool.lock);
        pool.status |= status;
        if (--pool.pending == 0)
            pthread_cond_signal(&pool.done);
    }
    pthread_mutex_unlock(&pool.lock);
    return NULL;
}

static int pool_launch(pool_body body, void *data, int tasks)
{
    (void)tasks; /* 0: as many as there are threads */
    if (pool.workers == 0) {
        pool_environment alone = {NULL, 1};
        return body(0, &alone, data);
    }
    pthread_mutex_lock(&pool.lock);
    pool.body = body;
    pool.data = data;
    pool.environment = (pool_environment){NULL, pool.workers + 1};
    pool.pending = pool.workers;
    pool.status = 0;
    pool.round++;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    int status = body(0, &pool.environment, data);
    pthread_mutex_lock(&pool.lock);
    while (pool.pending)
        pthread_cond_wait(&pool.done, &pool.lock);
    status |= pool.status;
    pthread_mutex_unlock(&pool.lock);
    return status;
}

static void pool_stop(void)
{
    pthread_mutex_lock(&pool.lock);
    pool.stop = 1;
    pthread_cond_broadcast(&pool.work);
    pthread_mutex_unlock(&pool.lock);
    for (int worker = pool.workers; worker > 0; worker--)
        pthread_join(pool.threads[worker], NULL);
    pool.workers = pool.stop = 0;
}

/* Return whether there are that many threads now; if not, there is one. */
static int pool_start(int threads)
{
    pthread_attr_t attributes;
    pool_stop();
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, POOL_STACK);
    while (pool.workers + 1 < threads) {
        int worker = pool.workers + 1;
        pool.since[worker] = pool.round;
        if (pthread_create(&pool.threads[worker], &attributes, pool_work,
                           (void *)(intptr_t)worker))
            break;
        pool.workers = worker;
    }
    pthread_attr_destroy(&attributes);
    if (pool.workers + 1 == threads)
        return 1;
    pool_stop();
    return 0;
}

#if defined(__GNUC__)
__attribute__((destructor))
#endif
static void pool_end(void)
{
    pool_stop();
}

#endif
