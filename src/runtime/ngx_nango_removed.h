/*
 * Copyright (C) nginx-nango authors
 *
 * Subscribers that the state knows and the configuration does not.
 */

#ifndef _NGX_NANGO_REMOVED_H_INCLUDED_
#define _NGX_NANGO_REMOVED_H_INCLUDED_


#include "ngx_nango.h"


/*
 * Tells of them in the error log, once a generation and as soon as the store
 * can be read.  For init_process, after the store; subscribers live as long as
 * the process.
 */
void ngx_nango_removed_init(ngx_cycle_t *cycle,
    ngx_nango_subscriber_t **subscribers, ngx_uint_t n);
void ngx_nango_removed_exit(void);


#endif /* _NGX_NANGO_REMOVED_H_INCLUDED_ */
