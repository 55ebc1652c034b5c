/*
 * Copyright (C) nginx-nango authors
 *
 * Leadership is a kernel lock on a file: who dies, leads no longer, and no
 * clock decides.  Each worker's thread asks for it every 250 ms and at once
 * when its own start finds it free.
 *
 * The leader looks, and is not told: the log's last transaction id is two
 * words of shared memory.  Hints through an eventfd only make it look sooner.
 *
 * A batch of the fold writes each page once, however many of its events touch
 * it, and the disk it writes to is the one that webhooks wait for.  So after a
 * batch the leader lets events gather for a multiple of the time that it took,
 * unless a request waits for the fold: a single event is applied at once, and
 * under load batches grow until the fold costs a fifth of the disk's time.
 *
 * What subscribers are owed goes the same way: the leader reads it for the
 * event loop, which sends it, and has what came of it committed along with the
 * fold.  A worker that exits may have clients for long; it lets others lead,
 * and goes on only if nobody does.
 */

#include "ngx_nango_leader.h"
#include "ngx_nango_courier.h"
#include "ngx_nango_shared.h"
#include "ngx_nango_trouble.h"

#include "nango_fold.h"
#include "nango_log.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>


#define NGX_NANGO_LOOK_IDLE     250
#define NGX_NANGO_LOOK_BUSY     10

/* Events gather for so many times what the last batch took; at most, in us. */
#define NGX_NANGO_GATHER        4
#define NGX_NANGO_GATHER_MAX    (500 * 1000)
#define NGX_NANGO_GATHER_WATCHED  (20 * 1000)

#define NGX_NANGO_HOUSEKEEPING  (60 * 1000 * 1000)
#define NGX_NANGO_LOOK_AFTER    (1000 * 1000)

/* us: what deliveries came to is committed so long after the last commit. */
#define NGX_NANGO_SETTLE        (20 * 1000)

/*
 * Pruning: so many events at a time, since webhooks wait for it; of the log's
 * size, what makes it urgent; us between looks, where there was more, where
 * there was not, and where much is owed at the log's old end.
 */
#define NGX_NANGO_PRUNE         2048
#define NGX_NANGO_PRUNE_FULL    90
#define NGX_NANGO_PRUNE_MORE    (10 * 1000)
#define NGX_NANGO_PRUNE_IDLE    (1000 * 1000)
#define NGX_NANGO_PRUNE_OWED    (60 * 1000 * 1000)

/* Looks sooner when such a part of the log's size has come. */
#define NGX_NANGO_PRUNE_PART    64

/* s: a deletion is remembered for longer than Nango's answers take. */
#define NGX_NANGO_DELETIONS     3600

/* us: so long others may lead instead. */
#define NGX_NANGO_YIELD         (1000 * 1000)

#define NGX_NANGO_LEADER_WRECKED  (-2)


typedef struct {
    nango_store_t  *store;
    time_t          retain;
    int             hint;
    int             stop;           /* eventfd: readable once it is over */
    ngx_log_t      *log;

    pthread_mutex_t mutex;

    /* Under the mutex. */
    pthread_t       thread;
    pthread_t       before;         /* to be joined by thread */
    ngx_uint_t      follows;
    ngx_uint_t      running;

    /* The thread's own. */
    uint64_t              housekeeping;
    uint64_t              looked;
    uint64_t              settle;       /* not before */
    uint64_t              yield;        /* until */
    uint64_t              begin;        /* not before */
    uint64_t              prune;        /* not before */
    uint64_t              prune_from;
    uint64_t              pruned;       /* in this pass */
    uint64_t              gained;       /* bytes since the last look */
    ngx_uint_t            prune_calls;
    ngx_uint_t            early;
    ngx_uint_t            old;          /* to be dropped from the state */
    ngx_uint_t            left;
    ngx_uint_t            leads;
    ngx_nango_trouble_t   trouble;
} ngx_nango_leader_t;


static void *ngx_nango_leader_cycle(void *data);
static void ngx_nango_leader_replace(ngx_nango_leader_t *l);
static void ngx_nango_leader_look_after(ngx_nango_leader_t *l);
static ngx_uint_t ngx_nango_leader_sleep(ngx_nango_leader_t *l, int ms,
    ngx_uint_t hint);
static int ngx_nango_leader_ask(ngx_nango_leader_t *l);
static nango_rc_e ngx_nango_leader_deliver(ngx_nango_leader_t *l, int *ms);
static ngx_uint_t ngx_nango_leader_settles(ngx_nango_leader_t *l, int *ms);
static nango_rc_e ngx_nango_leader_fold(ngx_nango_leader_t *l,
    nango_folded_t *folded);
static nango_rc_e ngx_nango_leader_housekeeping(ngx_nango_leader_t *l);
static nango_rc_e ngx_nango_leader_prune(ngx_nango_leader_t *l, int *ms);
static nango_rc_e ngx_nango_leader_failed(ngx_nango_leader_t *l,
    nango_rc_e rc, nango_error_t *err);
static void ngx_nango_leader_error(ngx_nango_leader_t *l, nango_error_t *err);


static ngx_nango_leader_t  ngx_nango_leader;

/* Written by the thread, read by the event loop. */
static ngx_uint_t          ngx_nango_leads;
static ngx_uint_t          ngx_nango_gap;


ngx_int_t
ngx_nango_leader_start(nango_store_t *store, time_t retain, int hint,
    ngx_log_t *log)
{
    int                  rc;
    ngx_nango_leader_t  *l;

    l = &ngx_nango_leader;

    ngx_memzero(l, sizeof(ngx_nango_leader_t));

    l->store = store;
    l->retain = retain;
    l->hint = hint;
    l->log = log;
    l->running = 1;

    (void) pthread_mutex_init(&l->mutex, NULL);

    l->stop = eventfd(0, EFD_CLOEXEC|EFD_NONBLOCK);
    if (l->stop == -1) {
        ngx_log_error(NGX_LOG_CRIT, log, ngx_errno,
                      "nango: eventfd() failed, this worker cannot lead");
        l->running = 0;
        return NGX_ERROR;
    }

    /* The caller's signal mask, which blocks all, is inherited. */

    rc = pthread_create(&l->thread, NULL, ngx_nango_leader_cycle, l);
    if (rc != 0) {
        ngx_log_error(NGX_LOG_CRIT, log, rc,
                      "nango: no thread could be started, "
                      "this worker cannot lead");
        (void) close(l->stop);
        l->running = 0;
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_nango_leader_stop(void)
{
    pthread_t            thread;
    ngx_nango_leader_t  *l;

    static uint64_t  one = 1;

    l = &ngx_nango_leader;

    if (!l->running) {
        return;
    }

    (void) pthread_mutex_lock(&l->mutex);
    l->running = 0;
    thread = l->thread;
    (void) pthread_mutex_unlock(&l->mutex);

    if (write(l->stop, &one, sizeof(one)) != sizeof(one)) {
        ngx_log_error(NGX_LOG_CRIT, l->log, ngx_errno,
                      "nango: write() to an eventfd failed");
    }

    (void) pthread_join(thread, NULL);
    (void) pthread_mutex_destroy(&l->mutex);
    (void) close(l->stop);
}


static void *
ngx_nango_leader_cycle(void *data)
{
    ngx_nango_leader_t *l = data;

    int              ms, lead, wait;
    uint64_t         busy, seen, start, gather, opened, generation;
    pthread_t        before;
    nango_rc_e       rc;
    ngx_uint_t       follows;
    nango_folded_t   folded;

    ngx_memzero(&folded, sizeof(nango_folded_t));

    (void) pthread_mutex_lock(&l->mutex);
    before = l->before;
    follows = l->follows;
    (void) pthread_mutex_unlock(&l->mutex);

    if (follows) {
        (void) pthread_join(before, NULL);
    }

    lead = 0;
    seen = 0;
    busy = 0;
    opened = 0;
    ms = 0;

    for ( ;; ) {

        if (ngx_nango_leader_sleep(l, ms, lead == 1)) {
            break;
        }

        ngx_nango_leader_look_after(l);

        lead = ngx_nango_leader_ask(l);

        if (lead == NGX_NANGO_LEADER_WRECKED) {
            ngx_nango_leader_replace(l);
            return NULL;
        }

        if (lead != 1) {
            ms = NGX_NANGO_LOOK_IDLE;
            seen = 0;
            continue;
        }

        /* A state that is new has it all before it, and no log moves then. */

        generation = nango_store_generation(l->store);

        if (generation != opened) {
            opened = generation;
            seen = 0;
        }

        /* A subscriber that is new gets what is folded from now on. */

        if (ngx_nango_leader_deliver(l, &wait) == NANGO_EWRECKED
            || ngx_nango_leader_housekeeping(l) == NANGO_EWRECKED
            || ngx_nango_leader_prune(l, &wait) == NANGO_EWRECKED)
        {
            ngx_nango_leader_replace(l);
            return NULL;
        }

        if (seen && nango_store_log_txnid(l->store) == seen
            && !l->old && !ngx_nango_leader_settles(l, &wait))
        {
            ms = (ngx_nango_ticks() - busy < 1000000) ? NGX_NANGO_LOOK_BUSY
                                                      : NGX_NANGO_LOOK_IDLE;
            ms = (wait != -1) ? ngx_min(ms, wait) : ms;
            continue;
        }

        start = ngx_nango_ticks();

        rc = ngx_nango_leader_fold(l, &folded);

        if (rc == NANGO_EWRECKED) {
            ngx_nango_leader_replace(l);
            return NULL;
        }

        if (rc != NANGO_OK) {
            ms = NGX_NANGO_LOOK_IDLE;
            seen = 0;
            continue;
        }

        if (folded.events) {
            busy = ngx_nango_ticks();
        }

        gather = NGX_NANGO_GATHER * (ngx_nango_ticks() - start);
        gather = ngx_max(gather, NGX_NANGO_SETTLE);
        l->settle = ngx_nango_ticks() + ngx_min(gather, NGX_NANGO_GATHER_MAX);

        ms = 0;

        if (folded.more) {
            continue;
        }

        seen = folded.log_txnid;

        if (folded.events == 0) {
            ms = NGX_NANGO_LOOK_BUSY;
            continue;
        }

        /* While nobody is in a hurry: gather, deaf to hints. */

        gather = NGX_NANGO_GATHER * (busy - start);

        if (ngx_nango_fold_watched()) {
            gather = ngx_min(gather, NGX_NANGO_GATHER_WATCHED);
        }

        gather = busy + ngx_min(gather, NGX_NANGO_GATHER_MAX);

        while (ngx_nango_ticks() < gather && !ngx_nango_fold_wanted()) {

            rc = ngx_nango_leader_deliver(l, &wait);

            if (rc == NANGO_OK) {
                rc = ngx_nango_leader_prune(l, &wait);
            }

            if (rc == NANGO_EWRECKED) {
                ngx_nango_leader_replace(l);
                return NULL;
            }

            if (rc != NANGO_OK || ngx_nango_leader_settles(l, &wait)) {
                break;
            }

            ms = (wait != -1) ? ngx_min(wait, NGX_NANGO_LOOK_BUSY)
                              : NGX_NANGO_LOOK_BUSY;

            if (ngx_nango_leader_sleep(l, ms, 0)) {
                goto done;
            }
        }

        ms = 0;
    }

done:

    if (lead == 1 && ngx_nango_courier_reported()) {
        (void) ngx_nango_leader_fold(l, &folded);
    }

    ngx_nango_courier_end();
    nango_store_resign(l->store);

    return NULL;
}


/*
 * As nango_store_lead(), unless others are to lead; or this thread has to end.
 */

static int
ngx_nango_leader_ask(ngx_nango_leader_t *l)
{
    int              lead;
    uint64_t         now;
    nango_error_t    err;
    nango_folded_t   folded;

    now = ngx_nango_ticks();

    if (!l->left && ngx_nango_courier_leaving()) {

        /* What the loop has reported before it left is the last. */

        if (ngx_nango_courier_reported()
            && ngx_nango_leader_fold(l, &folded) == NANGO_EWRECKED)
        {
            return NGX_NANGO_LEADER_WRECKED;
        }

        ngx_nango_courier_end();
        nango_store_resign(l->store);

        l->left = 1;
        l->leads = 0;
        l->yield = now + NGX_NANGO_YIELD;
    }

    lead = 0;

    if (!l->left || l->leads || now >= l->yield) {

        l->yield = now + NGX_NANGO_YIELD;

        lead = nango_store_lead(l->store, &err);

        if (lead == -1) {
            ngx_nango_leader_error(l, &err);
        }
    }

    l->leads = (lead == 1);

    __atomic_store_n(&ngx_nango_leads, l->leads, __ATOMIC_RELAXED);

    if (lead != 1) {
        ngx_nango_courier_end();
    }

    return lead;
}


/* Gives the loop what it has room for.  *ms: when to do it again, or -1. */

static nango_rc_e
ngx_nango_leader_deliver(ngx_nango_leader_t *l, int *ms)
{
    uint64_t        now;
    nango_rc_e      rc;
    nango_error_t   err;

    *ms = -1;

    if (l->left) {
        return NANGO_OK;
    }

    if (!ngx_nango_courier_begun()) {
        now = ngx_nango_ticks();

        if (now < l->begin) {
            return NANGO_OK;
        }

        l->begin = now + NGX_NANGO_LOOK_AFTER;

        rc = ngx_nango_courier_begin(l->store, &err);

    } else {
        rc = ngx_nango_courier_serve(l->store, ms, &err);
    }

    if (rc != NANGO_OK) {
        ngx_nango_courier_end();
        return ngx_nango_leader_failed(l, rc, &err);
    }

    return NANGO_OK;
}


/* Whether deliveries want a commit now.  *ms: when, if that is sooner. */

static ngx_uint_t
ngx_nango_leader_settles(ngx_nango_leader_t *l, int *ms)
{
    int       left;
    uint64_t  now;

    if (!ngx_nango_courier_reported()) {
        return 0;
    }

    now = ngx_nango_ticks();

    if (now >= l->settle) {
        return 1;
    }

    left = (int) ((l->settle - now) / 1000) + 1;

    if (*ms == -1 || left < *ms) {
        *ms = left;
    }

    return 0;
}


/* See ngx_nango_store.c.  Who cannot be followed leads no longer. */

static void
ngx_nango_leader_replace(ngx_nango_leader_t *l)
{
    int         rc;
    pthread_t   thread;

    rc = 0;

    (void) pthread_mutex_lock(&l->mutex);

    if (l->running) {
        rc = pthread_create(&thread, NULL, ngx_nango_leader_cycle, l);

        if (rc == 0) {
            l->before = l->thread;
            l->follows = 1;
            l->thread = thread;
        }
    }

    (void) pthread_mutex_unlock(&l->mutex);

    if (rc != 0) {
        ngx_nango_courier_end();
        nango_store_resign(l->store);

        ngx_log_error(NGX_LOG_CRIT, l->log, rc,
                      "nango: no thread could be started, "
                      "this worker cannot lead");
    }
}


/* In every worker: nobody may acknowledge into a file that is gone. */

static void
ngx_nango_leader_look_after(ngx_nango_leader_t *l)
{
    uint64_t        now;
    nango_error_t   err;

    now = ngx_nango_ticks();

    if (now - l->looked < NGX_NANGO_LOOK_AFTER) {
        return;
    }

    l->looked = now;

    if (nango_store_look_after(l->store, &err) == NANGO_OK) {
        return;
    }

    ngx_nango_leader_error(l, &err);

    if (nango_store_recover(l->store, &err) != NANGO_OK) {
        ngx_nango_leader_error(l, &err);
    }
}


/* 1: the end has come. */

static ngx_uint_t
ngx_nango_leader_sleep(ngx_nango_leader_t *l, int ms, ngx_uint_t hint)
{
    uint64_t       n;
    struct pollfd  fds[3];

    fds[0].fd = l->stop;
    fds[0].events = POLLIN;
    fds[0].revents = 0;

    fds[1].fd = hint ? l->hint : -1;
    fds[1].events = POLLIN;
    fds[1].revents = 0;

    fds[2].fd = ngx_nango_courier_thread_fd();
    fds[2].events = POLLIN;
    fds[2].revents = 0;

    if (poll(fds, 3, ms) <= 0) {
        return 0;
    }

    if ((fds[1].revents & POLLIN) && read(l->hint, &n, sizeof(n)) != sizeof(n))
    {
        /* another generation's leader was quicker */
    }

    if ((fds[2].revents & POLLIN)
        && read(fds[2].fd, &n, sizeof(n)) != sizeof(n))
    {
        /* only a hint */
    }

    return (fds[0].revents != 0);
}


static nango_rc_e
ngx_nango_leader_fold(ngx_nango_leader_t *l, nango_folded_t *folded)
{
    nango_rc_e            rc;
    nango_error_t         err;
    nango_fold_options_t  options;

    ngx_memzero(&options, sizeof(nango_fold_options_t));

    options.now_ms = ngx_nango_now();
    options.retain_ms = (uint64_t) ngx_max(l->retain, NGX_NANGO_DELETIONS)
                        * 1000;

    ngx_nango_courier_settlements(&options);

    rc = nango_fold(l->store, &options, folded, &err);

    if (rc == NANGO_OK && folded->reopened && l->left) {

        /* It delivers nothing any more, and others wait for the fold. */

        rc = ngx_nango_courier_register(l->store, &err);
    }

    if (rc != NANGO_OK) {
        return ngx_nango_leader_failed(l, rc, &err);
    }

    if (folded->reopened) {
        ngx_nango_courier_end();
        return NANGO_OK;
    }

    if (ngx_nango_trouble_over(&l->trouble)) {
        ngx_log_error(NGX_LOG_NOTICE, l->log, 0,
                      "nango: the state is being written again");
    }

    if (folded->gap) {

        /* Also if whoever leads next does not know of it. */

        ngx_nango_reconciled_never();

        __atomic_store_n(&ngx_nango_gap, 1, __ATOMIC_RELAXED);

        ngx_log_error(NGX_LOG_ERR, l->log, 0,
                      "nango: %uL events before sequence %uL are missing from "
                      "the log", folded->gap, folded->from);
    }

    if (folded->not_understood) {
        ngx_log_error(NGX_LOG_ERR, l->log, 0,
                      "nango: %uL events of the log up to sequence %uL could "
                      "not be read and were passed over",
                      folded->not_understood, folded->applied);
    }

    l->gained += folded->bytes;
    l->old = folded->old;

    ngx_nango_set_applied_hint(folded->applied);

    ngx_nango_courier_committed(l->store, folded->committed,
                                folded->applied);

    return NANGO_OK;
}


static nango_rc_e
ngx_nango_leader_housekeeping(ngx_nango_leader_t *l)
{
    uint64_t        now;
    nango_error_t   err;
    nango_folded_t  folded;

    now = ngx_nango_ticks();

    if (l->housekeeping && now - l->housekeeping < NGX_NANGO_HOUSEKEEPING) {
        return NANGO_OK;
    }

    l->housekeeping = now;

    (void) nango_store_check_readers(l->store);

    if (nango_body_sweep(l->store, ngx_nango_now(), 1024, &err) == -1) {
        ngx_nango_leader_error(l, &err);
    }

    /* Drops old tombstones and changes also when no event comes. */

    return ngx_nango_leader_fold(l, &folded);
}


/* A step of it, if it is time for one.  *ms: when for the next. */

static nango_rc_e
ngx_nango_leader_prune(ngx_nango_leader_t *l, int *ms)
{
    int                     left;
    uint64_t                now, pause;
    nango_rc_e              rc;
    nango_error_t           err;
    nango_pruned_t          pruned;
    nango_prune_options_t   options;

    now = ngx_nango_ticks();

    if (now >= l->prune
        || l->gained > nango_store_size(l->store) / NGX_NANGO_PRUNE_PART)
    {
        l->gained = 0;

        options.now_ms = ngx_nango_now();
        options.retain_ms = (uint64_t) l->retain * 1000;
        options.full_percent = NGX_NANGO_PRUNE_FULL;
        options.max_events = NGX_NANGO_PRUNE;

        rc = nango_log_prune(l->store, &options, &l->prune_from, &pruned,
                             &err);

        if (rc != NANGO_OK) {
            l->prune = ngx_nango_ticks() + NGX_NANGO_PRUNE_IDLE;

            return ngx_nango_leader_failed(l, rc, &err);
        }

        if (pruned.early && !l->early) {
            ngx_log_error(NGX_LOG_WARN, l->log, 0,
                          "nango: the log is nearly full; events are pruned "
                          "that are younger than \"retain\" and owed to "
                          "nobody");
        }

        l->early = (pruned.early != 0);
        l->pruned += pruned.pruned;
        l->prune_calls++;

        if (pruned.more) {
            pause = ngx_nango_ticks() - now;
            pause = ngx_max(pause, NGX_NANGO_PRUNE_MORE);

        } else {
            pause = (l->prune_calls > 1 && l->pruned == 0)
                    ? NGX_NANGO_PRUNE_OWED : NGX_NANGO_PRUNE_IDLE;

            l->prune_from = 0;
            l->prune_calls = 0;
            l->pruned = 0;
        }

        now = ngx_nango_ticks();
        l->prune = now + pause;
    }

    left = (int) ((l->prune - now) / 1000) + 1;

    if (*ms == -1 || left < *ms) {
        *ms = left;
    }

    return NANGO_OK;
}


/* What has to be opened again is opened again; returns rc. */

static nango_rc_e
ngx_nango_leader_failed(ngx_nango_leader_t *l, nango_rc_e rc,
    nango_error_t *err)
{
    ngx_nango_leader_error(l, err);

    if (rc != NANGO_EWRECKED && nango_store_needs_recovery(l->store)) {
        (void) nango_store_recover(l->store, err);
    }

    return rc;
}


/* The same trouble is one line, however often it is met. */

static void
ngx_nango_leader_error(ngx_nango_leader_t *l, nango_error_t *err)
{
    if (ngx_nango_trouble(&l->trouble, err->code)) {
        ngx_log_error(NGX_LOG_CRIT, l->log, 0, "nango: %s", err->text);
    }
}


ngx_uint_t
ngx_nango_leading(void)
{
    return __atomic_load_n(&ngx_nango_leads, __ATOMIC_RELAXED);
}


ngx_uint_t
ngx_nango_leader_gap(void)
{
    return __atomic_exchange_n(&ngx_nango_gap, 0, __ATOMIC_RELAXED);
}
