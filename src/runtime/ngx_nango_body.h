/*
 * Copyright (C) nginx-nango authors
 *
 * Sending a body that is a file, without a wait for the disk on the event
 * loop.
 */

#ifndef _NGX_NANGO_BODY_H_INCLUDED_
#define _NGX_NANGO_BODY_H_INCLUDED_


#include "ngx_nango_curl.h"


/*
 * On the event loop, before the transfer is started: its body is that of the
 * store with that name.  What is needed for it belongs to the transfer.
 * NGX_ERROR: no memory, no store, or no thread pool.
 */
ngx_int_t ngx_nango_body_read(ngx_nango_transfer_t *t, nango_str_t name);


#endif /* _NGX_NANGO_BODY_H_INCLUDED_ */
