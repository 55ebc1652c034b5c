/*
 * Copyright (C) nginx-nango authors
 *
 * Between the leader's thread, which may wait for the disk, and the event
 * loop, which sends: what is to be delivered goes one way, what came of it the
 * other.  Each subscriber has a desk for both.
 *
 * The thread reads, hands over, takes reports and has them committed with the
 * fold.  A message to the loop says up to which report that has happened
 * before what it brings was read; so the loop knows which rows its reader has
 * seen.  Whenever the thread begins anew (it leads, or another leader was
 * quicker), a message says from which position, and the loop forgets what it
 * has; reports that it made before are dropped, by their epoch.
 */

#ifndef _NGX_NANGO_COURIER_H_INCLUDED_
#define _NGX_NANGO_COURIER_H_INCLUDED_


#include "ngx_nango.h"

#include "nango_fold.h"
#include "nango_queue.h"


typedef struct ngx_nango_message_s  ngx_nango_message_t;

/* To the loop.  Ended with ngx_nango_courier_free(). */
struct ngx_nango_message_s {
    ngx_nango_message_t   *next;
    uint64_t               epoch;
    uint64_t               number;          /* of the report committed last */
    uint64_t               position;        /* 0: these are rows */
    nango_delivery_t      *deliveries;
    nango_settled_t       *settled;
    size_t                 nsettled;
    size_t                 settled_size;
    unsigned               begin:1;         /* anew, behind position */
    unsigned               end:1;           /* nothing is to be sent */
    unsigned               parked:1;
};


/*
 * On the event loop, before the store's threads are started, and after they
 * have ended.  NGX_OK also where there are no subscribers: all functions do
 * nothing then.
 */
ngx_int_t ngx_nango_courier_init(ngx_nango_subscriber_t **subscribers,
    ngx_uint_t n, ngx_log_t *log);
void ngx_nango_courier_exit(void);

/* Of these two eventfds, one wakes the loop and one the thread; -1: none. */
int ngx_nango_courier_loop_fd(void);
int ngx_nango_courier_thread_fd(void);


/* On the event loop. */

/* The oldest message to the i-th subscriber, now the caller's, or NULL. */
ngx_nango_message_t *ngx_nango_courier_receive(ngx_uint_t i);
void ngx_nango_courier_free(ngx_nango_message_t *m);

/*
 * Takes the queue's report to the i-th subscriber's desk, and says how many
 * events and lanes of rows there is room for, and whether what is too old
 * should be settled.  *wait: look again then.  NGX_ERROR: no memory, and all
 * begins anew.
 */
ngx_int_t ngx_nango_courier_report(ngx_uint_t i, uint64_t epoch,
    nango_queue_t *q, size_t room, ngx_uint_t rows, ngx_uint_t expire,
    uint64_t *wait);

/* Without memory: what was read is to be read anew. */
void ngx_nango_courier_restart(void);

/* This worker is to lead no longer; others may. */
void ngx_nango_courier_leave(void);


/* On the leader's thread. */

/*
 * Makes the subscribers known to the store that is open now, so that it can be
 * folded into; without beginning, for who only folds.  Errors as nango_fold().
 */
nango_rc_e ngx_nango_courier_register(nango_store_t *store,
    nango_error_t *err);

/*
 * Leads from now on, or no longer; the courier ends by itself where it has to
 * begin anew.  NANGO_EWRECKED: as nango_fold() has it.
 */
nango_rc_e ngx_nango_courier_begin(nango_store_t *store, nango_error_t *err);
void ngx_nango_courier_end(void);
ngx_uint_t ngx_nango_courier_begun(void);
ngx_uint_t ngx_nango_courier_leaving(void);

/*
 * For the fold's options: all that was reported.  Kept until the fold, up to
 * applied, has gone well; committed: it has written something.
 */
void ngx_nango_courier_settlements(nango_fold_options_t *options);
void ngx_nango_courier_committed(nango_store_t *store, ngx_uint_t committed,
    uint64_t applied);

/* Whether something waits to be committed. */
ngx_uint_t ngx_nango_courier_reported(void);

/* Reads what the loop has room for.  *ms: when to look again; -1: whenever. */
nango_rc_e ngx_nango_courier_serve(nango_store_t *store, int *ms,
    nango_error_t *err);


#endif /* _NGX_NANGO_COURIER_H_INCLUDED_ */
