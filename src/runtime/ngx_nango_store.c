/*
 * Copyright (C) nginx-nango authors
 *
 * A worker's committer thread and the event loop's side of the store.
 *
 * The thread owns every wait: opening the store (again and again, while that
 * fails: a bad store takes down nobody's site), the writer lock, the disk.
 * While one batch is on its way to the disk the next one gathers in the queue;
 * there is no timer and nothing to tune.  Finished jobs come back through a
 * list and an eventfd.
 *
 * Each job is in exactly one place: the queue, the batch, or the list of
 * finished ones; the event loop frees it after its handler.
 *
 * A fault in the middle of a write leaves LMDB's lock to a thread, until that
 * has ended.  So the thread ends, and the one that follows it goes on.
 */

#include "ngx_nango_store.h"
#include "ngx_nango_leader.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_trouble.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>


#define NGX_NANGO_RETRY_OPEN   1000
#define NGX_NANGO_LOOK         10

/* The fold makes no progress for this long: committing waits no longer. */
#define NGX_NANGO_FOLD_STUCK   (1000 * 1000)


typedef enum {
    NGX_NANGO_STORE_OPENING = 0,
    NGX_NANGO_STORE_OPEN,
    NGX_NANGO_STORE_FAILED          /* and tried again */
} ngx_nango_store_state_e;


typedef struct {
    /* Constant while the thread runs. */
    ngx_nango_store_conf_t  *conf;
    ngx_msec_t               remember;
    ngx_log_t               *log;
    int                      done_fd;

    pthread_mutex_t          mutex;
    pthread_cond_t           cond;

    /* Under the mutex. */
    pthread_t                thread;
    pthread_t                before;        /* to be joined by thread */
    ngx_uint_t               follows;
    ngx_nango_job_t         *queue;
    ngx_nango_job_t        **queue_last;
    ngx_nango_job_t         *done;
    ngx_nango_job_t        **done_last;
    size_t                   queued;        /* bytes */
    ngx_uint_t               stop;
    ngx_uint_t               recover;
    nango_store_t           *store;
    ngx_nango_store_state_e  state;
    nango_error_t            refusal;       /* code NANGO_OK: none */

    /* The event loop's. */
    nango_store_t           *open;          /* what it has seen of store */
    nango_reader_t          *reader;        /* made by the thread */
    nango_memo_t            *memo;
    ngx_connection_t        *done_connection;
    ngx_uint_t               pending;
    ngx_queue_t              waits;
    ngx_event_t              wait_event;
    ngx_event_t              hold_event;
    ngx_nango_trouble_t      unreadable;
    nango_error_t            unread;        /* while there is trouble */

    /* The thread's. */
    nango_writer_t          *writer;
    nango_reader_t          *lag_reader;
    ngx_nango_job_t         *batch;
    ngx_nango_job_t        **batch_last;
    size_t                   batch_bytes;
    uint64_t                 last;
    uint64_t                 stuck;         /* fold at this, plus one */
    ngx_uint_t               reopened;
    ngx_nango_trouble_t      trouble;
} ngx_nango_committer_t;


static ngx_int_t ngx_nango_store_start(ngx_cycle_t *cycle,
    ngx_nango_committer_t *cm);
static int ngx_nango_store_cond(pthread_cond_t *cond);
static void ngx_nango_store_hint_close(void *data);
static void *ngx_nango_committer_cycle(void *data);
static ngx_uint_t ngx_nango_committer_open(ngx_nango_committer_t *cm);
static void ngx_nango_committer_refuse(ngx_nango_committer_t *cm);
static ngx_uint_t ngx_nango_committer_sleep(ngx_nango_committer_t *cm, int ms);
static size_t ngx_nango_committer_batch(ngx_nango_committer_t *cm,
    nango_write_t **writes, ngx_uint_t *stop);
static size_t ngx_nango_committer_more(void *data, nango_write_t **writes,
    size_t n);
static size_t ngx_nango_committer_take(ngx_nango_committer_t *cm,
    nango_write_t **writes, size_t n);
static void ngx_nango_committer_lag(ngx_nango_committer_t *cm);
static void ngx_nango_committer_recover(ngx_nango_committer_t *cm);
static void ngx_nango_committer_replace(ngx_nango_committer_t *cm);
static void ngx_nango_committer_done(ngx_nango_committer_t *cm,
    ngx_nango_job_t *jobs);
static void ngx_nango_committer_error(ngx_nango_committer_t *cm,
    nango_error_t *err);
static void ngx_nango_committer_well(ngx_nango_committer_t *cm);
static nango_reader_t *ngx_nango_store_read(
    nango_rc_e (*begin)(nango_reader_t *reader, nango_error_t *err));
static void ngx_nango_job_let_go(ngx_nango_job_t *job);
static void ngx_nango_store_done_handler(ngx_event_t *ev);
static void ngx_nango_store_wait_handler(ngx_event_t *ev);
static void ngx_nango_store_hold_handler(ngx_event_t *ev);


static ngx_nango_committer_t  *ngx_nango_committer;

/* The generation's eventfd; see ngx_nango_leader.c. */
static int                     ngx_nango_hint = -1;

static ngx_connection_t        ngx_nango_store_dummy;


ngx_int_t
ngx_nango_store_share(ngx_cycle_t *cycle)
{
    int                 *fd;
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(cycle->pool, sizeof(int));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    ngx_nango_hint = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);

    if (ngx_nango_hint == -1) {
        /* only a hint */
        ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno,
                      "nango: eventfd() failed");
        return NGX_OK;
    }

    fd = cln->data;
    *fd = ngx_nango_hint;
    cln->handler = ngx_nango_store_hint_close;

    return NGX_OK;
}


static void
ngx_nango_store_hint_close(void *data)
{
    int  *fd = data;

    (void) close(*fd);
}


ngx_int_t
ngx_nango_store_init(ngx_cycle_t *cycle, ngx_nango_store_conf_t *conf,
    ngx_msec_t remember)
{
    ngx_nango_committer_t  *cm;

    cm = ngx_calloc(sizeof(ngx_nango_committer_t), cycle->log);
    if (cm == NULL) {
        return NGX_ERROR;
    }

    cm->conf = conf;
    cm->remember = remember;
    cm->log = cycle->log;
    cm->queue_last = &cm->queue;
    cm->done_last = &cm->done;

    ngx_queue_init(&cm->waits);

    ngx_nango_store_dummy.fd = (ngx_socket_t) -1;

    cm->wait_event.handler = ngx_nango_store_wait_handler;
    cm->wait_event.log = cycle->log;
    cm->wait_event.data = &ngx_nango_store_dummy;

    cm->hold_event.handler = ngx_nango_store_hold_handler;
    cm->hold_event.log = cycle->log;
    cm->hold_event.data = &ngx_nango_store_dummy;

    if (ngx_nango_store_start(cycle, cm) != NGX_OK) {
        ngx_free(cm);
        return NGX_ERROR;
    }

    ngx_nango_committer = cm;

    return NGX_OK;
}


static ngx_int_t
ngx_nango_store_start(ngx_cycle_t *cycle, ngx_nango_committer_t *cm)
{
    int                rc;
    sigset_t           all, old;
    ngx_connection_t  *c;

    cm->done_fd = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);
    if (cm->done_fd == -1) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, ngx_errno,
                      "nango: eventfd() failed");
        return NGX_ERROR;
    }

    c = ngx_get_connection(cm->done_fd, cycle->log);
    if (c == NULL) {
        goto close;
    }

    c->data = cm;
    c->read->handler = ngx_nango_store_done_handler;
    c->read->log = cycle->log;
    c->write->log = cycle->log;

    cm->done_connection = c;

    if (ngx_add_event(c->read, NGX_READ_EVENT, 0) != NGX_OK) {
        goto release;
    }

    rc = pthread_mutex_init(&cm->mutex, NULL);

    if (rc == 0) {
        rc = ngx_nango_store_cond(&cm->cond);
    }

    if (rc == 0) {
        /* nginx's signals are for its main thread. */

        (void) sigfillset(&all);
        (void) sigdelset(&all, SIGBUS);
        (void) pthread_sigmask(SIG_BLOCK, &all, &old);

        rc = pthread_create(&cm->thread, NULL, ngx_nango_committer_cycle, cm);

        (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    }

    if (rc != 0) {
        ngx_log_error(NGX_LOG_CRIT, cycle->log, rc,
                      "nango: no thread could be started");
        (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);
        goto release;
    }

    return NGX_OK;

release:

    ngx_free_connection(c);
    c->fd = (ngx_socket_t) -1;

close:

    (void) close(cm->done_fd);

    return NGX_ERROR;
}


/* By a clock that nobody sets: whoever sleeps until then wakes up. */

static int
ngx_nango_store_cond(pthread_cond_t *cond)
{
    int                 rc;
    pthread_condattr_t  attr;

    rc = pthread_condattr_init(&attr);
    if (rc != 0) {
        return rc;
    }

    rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);

    if (rc == 0) {
        rc = pthread_cond_init(cond, &attr);
    }

    (void) pthread_condattr_destroy(&attr);

    return rc;
}


void
ngx_nango_store_exit(ngx_cycle_t *cycle)
{
    pthread_t               thread;
    ngx_nango_job_t        *job;
    ngx_connection_t       *c;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return;
    }

    (void) pthread_mutex_lock(&cm->mutex);
    cm->stop = 1;
    thread = cm->thread;
    (void) pthread_cond_signal(&cm->cond);
    (void) pthread_mutex_unlock(&cm->mutex);

    /* Nobody follows it from now on. */

    (void) pthread_join(thread, NULL);

    ngx_nango_leader_stop();

    /* Jobs are left in the queue only if the store was never opened. */

    *cm->done_last = cm->queue;

    while (cm->done) {
        job = cm->done;
        cm->done = job->next;
        ngx_nango_job_free(job);
    }

    nango_memo_free(cm->memo);

    if (cm->reader) {
        nango_reader_free(cm->reader);
    }

    nango_store_close(cm->store);

    c = cm->done_connection;

    (void) ngx_del_event(c->read, NGX_READ_EVENT, 0);

    if (c->read->posted) {
        ngx_delete_posted_event(c->read);
    }

    ngx_free_connection(c);
    c->fd = (ngx_socket_t) -1;

    (void) close(cm->done_fd);

    if (cm->wait_event.timer_set) {
        ngx_del_timer(&cm->wait_event);
    }

    if (cm->hold_event.timer_set) {
        ngx_del_timer(&cm->hold_event);
    }

    (void) pthread_cond_destroy(&cm->cond);
    (void) pthread_mutex_destroy(&cm->mutex);

    ngx_free(cm);
    ngx_nango_committer = NULL;
}


static void *
ngx_nango_committer_cycle(void *data)
{
    ngx_nango_committer_t *cm = data;

    size_t            n;
    nango_rc_e        rc;
    pthread_t         before;
    ngx_uint_t        stop, follows;
    nango_error_t     err;
    nango_write_t    *writes[NGX_NANGO_BATCH_JOBS];

    static uint64_t  one = 1;

    (void) pthread_mutex_lock(&cm->mutex);
    before = cm->before;
    follows = cm->follows;
    (void) pthread_mutex_unlock(&cm->mutex);

    if (follows) {
        (void) pthread_join(before, NULL);

    } else if (!ngx_nango_committer_open(cm)) {
        return NULL;
    }

    for ( ;; ) {
        n = ngx_nango_committer_batch(cm, writes, &stop);

        if (nango_store_needs_recovery(cm->store)) {
            ngx_nango_committer_recover(cm);
            n = cm->batch ? n : 0;
        }

        if (n == 0) {
            if (stop) {
                break;
            }

            if (cm->reopened && ngx_nango_trouble_over(&cm->trouble)) {
                cm->reopened = 0;
                ngx_nango_committer_well(cm);
                ngx_log_error(NGX_LOG_NOTICE, cm->log, 0,
                              "nango: the store in \"%V\" is open again",
                              &cm->conf->path);
            }

            continue;
        }

        ngx_nango_committer_lag(cm);

        rc = nango_log_commit_more(cm->writer, writes, &n,
                                   ngx_nango_committer_more, cm, &err);

        if (rc != NANGO_OK) {
            ngx_nango_committer_error(cm, &err);

        } else if (ngx_nango_trouble_over(&cm->trouble)) {
            cm->reopened = 0;
            ngx_nango_committer_well(cm);
            ngx_log_error(NGX_LOG_NOTICE, cm->log, 0,
                          "nango: webhooks are being stored again");
        }

        ngx_nango_committer_done(cm, cm->batch);

        if (rc == NANGO_EWRECKED) {
            ngx_nango_committer_replace(cm);
            return NULL;
        }

        if (ngx_nango_hint != -1
            && write(ngx_nango_hint, &one, sizeof(one)) != sizeof(one))
        {
            /* nobody reads; the leader looks by itself */
        }
    }

    nango_reader_free(cm->lag_reader);
    nango_writer_free(cm->writer);

    return NULL;
}


/* 1: open; 0: asked to stop before it was. */

static ngx_uint_t
ngx_nango_committer_open(ngx_nango_committer_t *cm)
{
    uint64_t                start;
    nango_store_t          *store;
    nango_error_t           err;
    nango_store_options_t   options;

    ngx_memzero(&options, sizeof(nango_store_options_t));

    options.path = (char *) cm->conf->path.data;
    options.size = cm->conf->size;

    store = NULL;

    for ( ;; ) {
        start = ngx_nango_ticks();

        if (nango_store_open(&store, &options, &err) == NANGO_OK) {

            cm->writer = nango_writer_create(store, cm->remember);
            cm->lag_reader = nango_reader_create(store);
            cm->reader = nango_reader_create(store);

            if (cm->writer != NULL && cm->lag_reader != NULL
                && cm->reader != NULL)
            {
                break;
            }

            nango_writer_free(cm->writer);
            nango_reader_free(cm->lag_reader);
            nango_reader_free(cm->reader);
            nango_store_close(store);

            cm->reader = NULL;

            err.code = NANGO_ENOMEM;
            ngx_cpystrn((u_char *) err.text, (u_char *) "no memory",
                        sizeof(err.text));
        }

        ngx_nango_committer_error(cm, &err);
        ngx_nango_committer_refuse(cm);

        /* What took long, reading a large store, is not done all day. */

        start = (ngx_nango_ticks() - start) / 100;

        if (ngx_nango_committer_sleep(cm, start < NGX_NANGO_RETRY_OPEN
                                          ? NGX_NANGO_RETRY_OPEN
                                          : (int) start))
        {
            return 0;
        }
    }

    if (cm->trouble.kinds) {
        cm->trouble.kinds = 0;
        ngx_nango_committer_well(cm);
        ngx_log_error(NGX_LOG_NOTICE, cm->log, 0,
                      "nango: the store in \"%V\" is open", &cm->conf->path);
    }

    (void) ngx_nango_leader_start(store, cm->conf->retain, ngx_nango_hint,
                                  cm->log);

    /*
     * A reader's first snapshot takes its place in LMDB's table, whose lock
     * another process may hold: this thread can wait for it, the event loop
     * not.
     */

    if (nango_reader_begin(cm->reader, &err) == NANGO_OK) {
        nango_reader_end(cm->reader);
    }

    (void) pthread_mutex_lock(&cm->mutex);
    cm->store = store;
    cm->state = NGX_NANGO_STORE_OPEN;
    (void) pthread_mutex_unlock(&cm->mutex);

    return 1;
}


/* What was queued while there was hope. */

static void
ngx_nango_committer_refuse(ngx_nango_committer_t *cm)
{
    ngx_nango_job_t  *jobs, *job;

    (void) pthread_mutex_lock(&cm->mutex);

    cm->state = NGX_NANGO_STORE_FAILED;

    jobs = cm->queue;
    cm->queue = NULL;
    cm->queue_last = &cm->queue;
    cm->queued = 0;

    (void) pthread_mutex_unlock(&cm->mutex);

    if (jobs == NULL) {
        return;
    }

    for (job = jobs; job; job = job->next) {
        job->write.result = NANGO_WRITE_FAILED;
    }

    ngx_nango_committer_done(cm, jobs);
}


/* 1: asked to stop. */

static ngx_uint_t
ngx_nango_committer_sleep(ngx_nango_committer_t *cm, int ms)
{
    ngx_uint_t       stop;
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    ts.tv_sec += ms / 1000;
    ts.tv_nsec += (ms % 1000) * 1000000L;

    if (ts.tv_nsec >= 1000000000L) {
        ts.tv_nsec -= 1000000000L;
        ts.tv_sec++;
    }

    (void) pthread_mutex_lock(&cm->mutex);

    while (!cm->stop) {
        if (pthread_cond_timedwait(&cm->cond, &cm->mutex, &ts) == ETIMEDOUT) {
            break;
        }
    }

    stop = cm->stop;

    (void) pthread_mutex_unlock(&cm->mutex);

    return stop;
}


/*
 * Waits for jobs and begins a batch.  0: there is something else to do, namely
 * to recover, to tell that this went well or, with nothing left to write, to
 * stop.
 */

static size_t
ngx_nango_committer_batch(ngx_nango_committer_t *cm, nango_write_t **writes,
    ngx_uint_t *stop)
{
    size_t           n;
    struct timespec  ts;

    cm->batch = NULL;
    cm->batch_last = &cm->batch;
    cm->batch_bytes = 0;

    if (cm->reopened) {
        (void) clock_gettime(CLOCK_MONOTONIC, &ts);
        ts.tv_sec += 1 + NGX_NANGO_CALM / 1000;
    }

    (void) pthread_mutex_lock(&cm->mutex);

    while (cm->queue == NULL && !cm->stop && !cm->recover) {

        if (!cm->reopened) {
            (void) pthread_cond_wait(&cm->cond, &cm->mutex);

        } else if (pthread_cond_timedwait(&cm->cond, &cm->mutex, &ts)
                   == ETIMEDOUT)
        {
            break;
        }
    }

    cm->recover = 0;
    *stop = cm->stop;

    n = ngx_nango_committer_take(cm, writes, 0);

    (void) pthread_mutex_unlock(&cm->mutex);

    return n;
}


/* What has come while the batch waited for the log's writer lock. */

static size_t
ngx_nango_committer_more(void *data, nango_write_t **writes, size_t n)
{
    ngx_nango_committer_t *cm = data;

    (void) pthread_mutex_lock(&cm->mutex);

    n = ngx_nango_committer_take(cm, writes, n);

    (void) pthread_mutex_unlock(&cm->mutex);

    return n;
}


static size_t
ngx_nango_committer_take(ngx_nango_committer_t *cm, nango_write_t **writes,
    size_t n)
{
    ngx_nango_job_t  *job;

    while (cm->queue && n < NGX_NANGO_BATCH_JOBS
           && cm->batch_bytes < NGX_NANGO_BATCH_BYTES)
    {
        job = cm->queue;

        cm->queue = job->next;
        cm->queued -= job->write.len;

        job->next = NULL;

        *cm->batch_last = job;
        cm->batch_last = &job->next;
        cm->batch_bytes += job->write.len;

        writes[n++] = &job->write;
    }

    if (cm->queue == NULL) {
        cm->queue_last = &cm->queue;
    }

    return n;
}


/*
 * The log must not run away from the state: its readers could not follow, and
 * the size of what waits would be unbounded.  But a fold that is stuck does
 * not stop the log, which is what a webhook is acknowledged by: it is waited
 * for once, and then not before it has moved.
 */

static void
ngx_nango_committer_lag(ngx_nango_committer_t *cm)
{
    uint64_t       applied, before, since;
    nango_error_t  err;

    before = 0;
    since = ngx_nango_ticks();

    while (cm->last > ngx_nango_applied_hint() + NGX_NANGO_LAG_MAX) {

        if (nango_reader_begin(cm->lag_reader, &err) != NANGO_OK) {
            return;
        }

        applied = nango_reader_applied(cm->lag_reader);

        nango_reader_end(cm->lag_reader);

        if (cm->last <= applied + NGX_NANGO_LAG_MAX
            || cm->stuck == applied + 1)
        {
            return;
        }

        if (applied != before) {
            before = applied;
            since = ngx_nango_ticks();

        } else if (ngx_nango_ticks() - since > NGX_NANGO_FOLD_STUCK) {
            cm->stuck = applied + 1;
            return;
        }

        if (ngx_nango_committer_sleep(cm, NGX_NANGO_LOOK)) {
            return;
        }
    }
}


/* What came before it was known to be closed is answered at once. */

static void
ngx_nango_committer_recover(ngx_nango_committer_t *cm)
{
    ngx_nango_job_t  *job;
    nango_error_t     err;

    cm->reopened = 1;

    if (nango_store_recover(cm->store, &err) == NANGO_OK) {
        return;
    }

    if (cm->batch) {
        for (job = cm->batch; job; job = job->next) {
            job->write.result = NANGO_WRITE_FAILED;
        }

        ngx_nango_committer_done(cm, cm->batch);
        cm->batch = NULL;
    }

    do {
        ngx_nango_committer_error(cm, &err);
        ngx_nango_committer_refuse(cm);

        if (ngx_nango_committer_sleep(cm, NGX_NANGO_RETRY_OPEN)) {
            return;
        }

    } while (nango_store_recover(cm->store, &err) != NANGO_OK);

    (void) pthread_mutex_lock(&cm->mutex);
    cm->state = NGX_NANGO_STORE_OPEN;
    (void) pthread_mutex_unlock(&cm->mutex);
}


/* Nobody follows one that is to stop. */

static void
ngx_nango_committer_replace(ngx_nango_committer_t *cm)
{
    int         rc;
    pthread_t   thread;

    do {
        rc = 0;

        (void) pthread_mutex_lock(&cm->mutex);

        if (!cm->stop) {
            rc = pthread_create(&thread, NULL, ngx_nango_committer_cycle, cm);

            if (rc == 0) {
                cm->before = cm->thread;
                cm->follows = 1;
                cm->thread = thread;
            }
        }

        (void) pthread_mutex_unlock(&cm->mutex);

        if (rc != 0) {
            ngx_log_error(NGX_LOG_CRIT, cm->log, rc,
                          "nango: no thread could be started");
        }

    } while (rc != 0 && !ngx_nango_committer_sleep(cm, NGX_NANGO_RETRY_OPEN));
}


static void
ngx_nango_committer_done(ngx_nango_committer_t *cm, ngx_nango_job_t *jobs)
{
    uint64_t           now;
    ngx_nango_job_t   *job, **last;

    static uint64_t  one = 1;

    now = ngx_nango_ticks();
    last = &jobs;

    for (job = jobs; job; job = job->next) {
        job->committed = now;
        last = &job->next;

        if (job->write.sequence > cm->last
            && job->write.result == NANGO_WRITE_STORED)
        {
            cm->last = job->write.sequence;
        }

        /*
         * A body whose record did not come to be.  After a failed commit
         * nobody knows, and the file stays for the leader's sweep.
         */

        if (job->body_file && job->write.result != NANGO_WRITE_STORED
            && job->write.result != NANGO_WRITE_FAILED)
        {
            nango_body_remove(cm->store, nango_str(job->body_name,
                                                   NANGO_BODY_NAME_LEN));
        }

        ngx_nango_job_let_go(job);
    }

    (void) pthread_mutex_lock(&cm->mutex);

    *cm->done_last = jobs;
    cm->done_last = last;

    (void) pthread_mutex_unlock(&cm->mutex);

    if (write(cm->done_fd, &one, sizeof(one)) != sizeof(one)) {
        ngx_log_error(NGX_LOG_CRIT, cm->log, ngx_errno,
                      "nango: write() to an eventfd failed");
    }
}


/* The same trouble is one line, however many webhooks meet it. */

static void
ngx_nango_committer_error(ngx_nango_committer_t *cm, nango_error_t *err)
{
    if (ngx_nango_trouble(&cm->trouble, err->code)) {
        ngx_log_error(NGX_LOG_CRIT, cm->log, 0,
                      "nango: %s; webhooks are answered 503 meanwhile",
                      err->text);
    }

    (void) pthread_mutex_lock(&cm->mutex);
    cm->refusal = *err;
    (void) pthread_mutex_unlock(&cm->mutex);
}


static void
ngx_nango_committer_well(ngx_nango_committer_t *cm)
{
    (void) pthread_mutex_lock(&cm->mutex);
    cm->refusal.code = NANGO_OK;
    (void) pthread_mutex_unlock(&cm->mutex);
}


static void
ngx_nango_store_done_handler(ngx_event_t *ev)
{
    uint64_t                n;
    ngx_nango_job_t        *job, *next;
    ngx_connection_t       *c;
    ngx_nango_committer_t  *cm;

    c = ev->data;
    cm = c->data;

    if (read(cm->done_fd, &n, sizeof(n)) != sizeof(n)) {
        return;
    }

    (void) pthread_mutex_lock(&cm->mutex);

    job = cm->done;
    cm->done = NULL;
    cm->done_last = &cm->done;

    (void) pthread_mutex_unlock(&cm->mutex);

    for ( /* void */ ; job; job = next) {
        next = job->next;

        cm->pending--;

        if (job->handler) {
            job->handler(job);
        }

        if (job->then && job->write.result == NANGO_WRITE_STORED) {
            job->then->write.unseen = job->write.sequence + 1;

            if (ngx_nango_job_submit(job->then) == NGX_OK) {
                job->then = NULL;
            }
        }

        ngx_nango_job_free(job);
    }

    if (cm->pending == 0 && cm->hold_event.timer_set) {
        ngx_del_timer(&cm->hold_event);
    }
}


ngx_uint_t
ngx_nango_store_ready(void)
{
    ngx_uint_t              ready;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return 0;
    }

    (void) pthread_mutex_lock(&cm->mutex);

    ready = (cm->state != NGX_NANGO_STORE_FAILED
             && cm->queued < NGX_NANGO_QUEUE_MAX);

    (void) pthread_mutex_unlock(&cm->mutex);

    return ready;
}


ngx_uint_t
ngx_nango_store_opening(void)
{
    ngx_uint_t              opening;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return 0;
    }

    (void) pthread_mutex_lock(&cm->mutex);
    opening = (cm->state == NGX_NANGO_STORE_OPENING);
    (void) pthread_mutex_unlock(&cm->mutex);

    return opening;
}


nango_store_t *
ngx_nango_store(void)
{
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return NULL;
    }

    if (cm->open == NULL) {
        (void) pthread_mutex_lock(&cm->mutex);
        cm->open = cm->store;
        (void) pthread_mutex_unlock(&cm->mutex);
    }

    return cm->open;
}


ngx_nango_job_t *
ngx_nango_job_create(size_t record_len)
{
    ngx_nango_job_t  *job;

    job = malloc(offsetof(ngx_nango_job_t, record) + record_len);
    if (job == NULL) {
        return NULL;
    }

    ngx_memzero(job, offsetof(ngx_nango_job_t, record));

    job->write.record = job->record;
    job->write.len = record_len;

    return job;
}


void
ngx_nango_job_free(ngx_nango_job_t *job)
{
    ngx_nango_job_let_go(job);
    free(job->then);
    free(job);
}


/* The sweep may judge its body. */

static void
ngx_nango_job_let_go(ngx_nango_job_t *job)
{
    if (job->body_file && job->body_held != -1) {
        (void) close(job->body_held);
        job->body_held = -1;
    }
}


ngx_int_t
ngx_nango_job_submit(ngx_nango_job_t *job)
{
    ngx_uint_t              empty;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return NGX_DECLINED;
    }

    job->next = NULL;
    job->submitted = ngx_nango_ticks();

    (void) pthread_mutex_lock(&cm->mutex);

    if (cm->state == NGX_NANGO_STORE_FAILED) {
        (void) pthread_mutex_unlock(&cm->mutex);
        return NGX_DECLINED;
    }

    if (cm->queued + job->write.len > NGX_NANGO_QUEUE_MAX) {
        (void) pthread_mutex_unlock(&cm->mutex);
        return NGX_BUSY;
    }

    empty = (cm->queue == NULL);

    *cm->queue_last = job;
    cm->queue_last = &job->next;
    cm->queued += job->write.len;

    if (empty) {
        (void) pthread_cond_signal(&cm->cond);
    }

    (void) pthread_mutex_unlock(&cm->mutex);

    /* An exiting worker stays until the answers are out. */

    if (cm->pending++ == 0) {
        ngx_add_timer(&cm->hold_event, 60000);
    }

    return NGX_OK;
}


static void
ngx_nango_store_hold_handler(ngx_event_t *ev)
{
    ngx_add_timer(ev, 60000);
}


nango_reader_t *
ngx_nango_store_snapshot(void)
{
    return ngx_nango_store_read(nango_reader_begin);
}


nango_reader_t *
ngx_nango_store_glance(void)
{
    return ngx_nango_store_read(nango_reader_begin_state);
}


static nango_reader_t *
ngx_nango_store_read(nango_rc_e (*begin)(nango_reader_t *reader,
    nango_error_t *err))
{
    nango_rc_e              rc;
    nango_error_t           err;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (ngx_nango_store() == NULL) {
        return NULL;
    }

    rc = begin(cm->reader, &err);

    if (rc == NANGO_OK) {
        (void) ngx_nango_trouble_over(&cm->unreadable);
        return cm->reader;
    }

    if (rc != NANGO_EBUSY) {
        ngx_nango_store_unreadable(&err);
    }

    return NULL;
}


nango_memo_t *
ngx_nango_store_memo(void)
{
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return NULL;
    }

    if (cm->memo == NULL) {
        cm->memo = nango_memo_create(NGX_NANGO_MEMO);
    }

    return cm->memo;
}


void
ngx_nango_store_unreadable(nango_error_t *err)
{
    ngx_uint_t              level;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    cm->unread = *err;

    if (ngx_nango_trouble(&cm->unreadable, err->code)) {
        level = (err->code == NANGO_EBROKEN) ? NGX_LOG_ERR : NGX_LOG_CRIT;

        ngx_log_error(level, ngx_cycle->log, 0,
                      "nango: %s; the state cannot be read meanwhile",
                      err->text);
    }

    if (nango_store_needs_recovery(cm->open)) {
        (void) pthread_mutex_lock(&cm->mutex);
        cm->recover = 1;
        (void) pthread_cond_signal(&cm->cond);
        (void) pthread_mutex_unlock(&cm->mutex);
    }
}


ngx_uint_t
ngx_nango_store_trouble(nango_error_t *err)
{
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    if (cm == NULL) {
        return 0;
    }

    (void) pthread_mutex_lock(&cm->mutex);
    *err = cm->refusal;
    (void) pthread_mutex_unlock(&cm->mutex);

    if (err->code != NANGO_OK) {
        return 1;
    }

    if (cm->unreadable.kinds) {
        *err = cm->unread;
        return 1;
    }

    return 0;
}


void
ngx_nango_store_wait(ngx_nango_wait_t *wait, uint64_t sequence,
    ngx_msec_t timeout)
{
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;

    wait->sequence = sequence;
    wait->deadline = ngx_current_msec + timeout;

    ngx_queue_insert_tail(&cm->waits, &wait->queue);

    ngx_nango_want_fold();

    if (!cm->wait_event.timer_set) {
        ngx_add_timer(&cm->wait_event, NGX_NANGO_LOOK);
    }
}


void
ngx_nango_store_wait_cancel(ngx_nango_wait_t *wait)
{
    ngx_queue_remove(&wait->queue);
}


static void
ngx_nango_store_wait_handler(ngx_event_t *ev)
{
    uint64_t                applied;
    ngx_uint_t              hopeless;
    ngx_queue_t            *q, ready;
    nango_reader_t         *reader;
    ngx_nango_wait_t       *wait;
    ngx_nango_committer_t  *cm;

    cm = ngx_nango_committer;
    applied = 0;

    reader = ngx_nango_store_snapshot();

    if (reader) {
        applied = nango_reader_applied(reader);
        nango_reader_end(reader);
    }

    hopeless = (reader == NULL && ngx_nango_store() == NULL
                && !ngx_nango_store_opening());

    /* A handler may start or cancel waits: take out what is ready first. */

    ngx_queue_init(&ready);

    q = ngx_queue_head(&cm->waits);

    while (q != ngx_queue_sentinel(&cm->waits)) {
        wait = ngx_queue_data(q, ngx_nango_wait_t, queue);
        q = ngx_queue_next(q);

        if (hopeless
            || (reader && wait->sequence <= applied)
            || (ngx_msec_int_t) (wait->deadline - ngx_current_msec) <= 0)
        {
            ngx_queue_remove(&wait->queue);
            ngx_queue_insert_tail(&ready, &wait->queue);
        }
    }

    while (!ngx_queue_empty(&ready)) {
        q = ngx_queue_head(&ready);
        wait = ngx_queue_data(q, ngx_nango_wait_t, queue);

        ngx_queue_remove(q);
        wait->handler(wait);
    }

    if (!ngx_queue_empty(&cm->waits) && !cm->wait_event.timer_set) {
        ngx_nango_want_fold();
        ngx_add_timer(&cm->wait_event, NGX_NANGO_LOOK);
    }
}
