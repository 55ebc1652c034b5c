/*
 * Copyright (C) nginx-nango authors
 *
 * Nango drops webhooks silently and says nothing of some changes.  So the
 * worker that leads compares each environment with Nango's list of its
 * connections, at first and then every "reconcile", and repairs what differs.
 *
 * On the event loop of every worker; only the leader's does anything.
 */

#ifndef _NGX_NANGO_RECONCILE_H_INCLUDED_
#define _NGX_NANGO_RECONCILE_H_INCLUDED_


#include "ngx_nango.h"


/* NGX_OK; NGX_ERROR: no memory, and nothing is compared by this worker. */
ngx_int_t ngx_nango_reconcile_init(ngx_cycle_t *cycle,
    ngx_nango_environment_t **environments, ngx_uint_t n);
void ngx_nango_reconcile_exit(void);


#endif /* _NGX_NANGO_RECONCILE_H_INCLUDED_ */
