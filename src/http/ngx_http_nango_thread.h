/*
 * Copyright (C) nginx-nango authors
 *
 * Work of a request that waits for the disk, in nginx's thread pool "default".
 */

#ifndef _NGX_HTTP_NANGO_THREAD_H_INCLUDED_
#define _NGX_HTTP_NANGO_THREAD_H_INCLUDED_


#include "ngx_http_nango.h"


/*
 * The request's pool, and so the task and whatever it works on, lives until
 * the thread is done, whatever happens to the client.  NGX_ERROR: the queue is
 * full.  task->event has its data and its handler, which calls the second
 * function first: NGX_AGAIN, it is not done yet; or NGX_OK.  If the client has
 * left meanwhile, which a cleanup handler of the request tells, the third one
 * comes last, and the request may be gone after it.
 */
ngx_int_t ngx_http_nango_thread_post(ngx_http_request_t *r,
    ngx_thread_task_t *task);
ngx_int_t ngx_http_nango_thread_done(ngx_http_request_t *r, ngx_event_t *ev);
void ngx_http_nango_thread_gone(ngx_http_request_t *r);


#endif /* _NGX_HTTP_NANGO_THREAD_H_INCLUDED_ */
