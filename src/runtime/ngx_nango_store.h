/*
 * Copyright (C) nginx-nango authors
 *
 * The store in a worker: a committer thread that opens it and writes what
 * arrives, and the event loop's side of both.  Functions are called on the
 * worker's event loop unless they say otherwise, and none of them waits.
 */

#ifndef _NGX_NANGO_STORE_H_INCLUDED_
#define _NGX_NANGO_STORE_H_INCLUDED_


#include "ngx_nango.h"

#include "nango_log.h"
#include "nango_memo.h"
#include "nango_state.h"


/* Bytes of records that may be queued in a worker; more is 503. */
#define NGX_NANGO_QUEUE_MAX    (64 * 1024 * 1024)

#define NGX_NANGO_BATCH_JOBS   256
#define NGX_NANGO_BATCH_BYTES  (8 * 1024 * 1024)

/*
 * Lookups whose answers a worker keeps, in 256 bytes each: 32 MB at most, once
 * there were so many different ones.
 */
#define NGX_NANGO_MEMO         131072

/* Events that may be unapplied before committing waits for the fold. */
#define NGX_NANGO_LAG_MAX      65536


typedef struct ngx_nango_job_s  ngx_nango_job_t;

typedef void (*ngx_nango_job_pt)(ngx_nango_job_t *job);

/*
 * A record on its way into the log.  On the heap, since it outlives a request
 * whose client leaves: owned by the one who made it until it is submitted,
 * then by the queue, which frees it after handler.
 */
struct ngx_nango_job_s {
    nango_write_t          write;
    ngx_nango_job_t       *next;
    ngx_nango_job_pt       handler;         /* NULL: nobody waits any more */
    void                  *data;

    /*
     * Submitted once this one is stored, to be written if nothing has come of
     * the same connection in between.  Freed with this one, if it is not.
     */
    ngx_nango_job_t       *then;

    uint64_t               submitted;       /* us */
    uint64_t               committed;       /* us */
    unsigned               body_file:1;
    int                    body_held;       /* with body_file; -1: no more */
    unsigned char          body_name[NANGO_BODY_NAME_LEN];
    u_char                 record[1];
};


ngx_int_t ngx_nango_store_init(ngx_cycle_t *cycle,
    ngx_nango_store_conf_t *conf, ngx_msec_t remember);

/* Writes what is queued, joins the threads, closes the store. */
void ngx_nango_store_exit(ngx_cycle_t *cycle);

/* For init_module: what a generation's workers share.  Closed with the pool. */
ngx_int_t ngx_nango_store_share(ngx_cycle_t *cycle);


/*
 * Whether webhooks can be taken now: the store is open or just being opened
 * for the first time, when jobs are queued, and there is room in the queue.
 */
ngx_uint_t ngx_nango_store_ready(void);

/* Not open yet, and not known to be bad: worth waiting for. */
ngx_uint_t ngx_nango_store_opening(void);

/* NULL until the store is open.  May be used on other threads. */
nango_store_t *ngx_nango_store(void);

ngx_nango_job_t *ngx_nango_job_create(size_t record_len);
void ngx_nango_job_free(ngx_nango_job_t *job);

/* NGX_OK; NGX_BUSY: the queue is full; NGX_DECLINED: the store is not open. */
ngx_int_t ngx_nango_job_submit(ngx_nango_job_t *job);


/*
 * A snapshot of the store for the event loop; NULL while there is none.  Ended
 * with nango_reader_end(), before the caller returns to the loop.
 */
nango_reader_t *ngx_nango_store_snapshot(void);

/* Of the state alone: see nango_reader_begin_state(). */
nango_reader_t *ngx_nango_store_glance(void);

/*
 * What lookups in these snapshots have found; NULL: no memory, or no store.
 * Made when it is first asked for.
 */
nango_memo_t *ngx_nango_store_memo(void);

/* What reading in a snapshot came to: tells it, and has it seen to. */
void ngx_nango_store_unreadable(nango_error_t *err);


/*
 * What keeps this worker from writing or reading: 1 and *err, as it was told
 * last; 0: nothing that it has met.
 */
ngx_uint_t ngx_nango_store_trouble(nango_error_t *err);


/*
 * Waits until the store can be read and sequence is in the state, at most for
 * timeout ms; then calls handler, from the loop.
 */
typedef struct ngx_nango_wait_s  ngx_nango_wait_t;

struct ngx_nango_wait_s {
    ngx_queue_t            queue;
    uint64_t               sequence;
    ngx_msec_t             deadline;
    void                 (*handler)(ngx_nango_wait_t *wait);
    void                  *data;
};

void ngx_nango_store_wait(ngx_nango_wait_t *wait, uint64_t sequence,
    ngx_msec_t timeout);
void ngx_nango_store_wait_cancel(ngx_nango_wait_t *wait);


#endif /* _NGX_NANGO_STORE_H_INCLUDED_ */
