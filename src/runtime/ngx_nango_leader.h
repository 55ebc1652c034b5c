/*
 * Copyright (C) nginx-nango authors
 *
 * The leader thread: every worker has one, and the one that holds the store's
 * lock folds the log into the state.
 */

#ifndef _NGX_NANGO_LEADER_H_INCLUDED_
#define _NGX_NANGO_LEADER_H_INCLUDED_


#include "ngx_nango.h"

#include "nango_store.h"


/*
 * Called on the committer thread, which has opened the store.  hint is an
 * eventfd that committers of this generation write to, or -1.
 */
ngx_int_t ngx_nango_leader_start(nango_store_t *store, time_t retain, int hint,
    ngx_log_t *log);

/*
 * Whether this worker leads, as it was a moment ago; and, once, whether events
 * were found to be missing from the log since it was asked last.  On the event
 * loop.
 */
ngx_uint_t ngx_nango_leading(void);
ngx_uint_t ngx_nango_leader_gap(void);

/* Joins it.  At most one batch of the fold is waited for. */
void ngx_nango_leader_stop(void);


#endif /* _NGX_NANGO_LEADER_H_INCLUDED_ */
