/*
 * Copyright (C) nginx-nango authors
 *
 * Delivering events to subscribers, from the event loop of the worker that
 * leads.
 */

#ifndef _NGX_NANGO_DELIVER_H_INCLUDED_
#define _NGX_NANGO_DELIVER_H_INCLUDED_


#include "ngx_nango.h"


/*
 * Before ngx_nango_store_init() and ngx_nango_curl_init() in a worker's start.
 */
ngx_int_t ngx_nango_deliver_init(ngx_cycle_t *cycle,
    ngx_nango_subscriber_t **subscribers, ngx_uint_t n);

/*
 * The first before ngx_nango_store_exit(), whose threads commit what is
 * reported then; the second after it, and after ngx_nango_curl_exit().
 */
void ngx_nango_deliver_stop(void);
void ngx_nango_deliver_exit(void);


#endif /* _NGX_NANGO_DELIVER_H_INCLUDED_ */
