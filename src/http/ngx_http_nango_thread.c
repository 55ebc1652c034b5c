/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_http_nango_thread.h.
 */

#include "ngx_http_nango_thread.h"


#define NGX_HTTP_NANGO_TASK_TIMEOUT  60000


ngx_int_t
ngx_http_nango_thread_post(ngx_http_request_t *r, ngx_thread_task_t *task)
{
    ngx_thread_pool_t  *tp;

    static ngx_str_t  name = ngx_string("default");

    tp = ngx_thread_pool_get((ngx_cycle_t *) ngx_cycle, &name);

    task->event.log = r->connection->log;

    if (tp == NULL || ngx_thread_task_post(tp, task) != NGX_OK) {
        return NGX_ERROR;
    }

    r->main->blocked++;
    r->aio = 1;

    /* Before 1.25.4 a posted task alone does not hold an exiting worker. */

    ngx_add_timer(&task->event, NGX_HTTP_NANGO_TASK_TIMEOUT);

    return NGX_OK;
}


ngx_int_t
ngx_http_nango_thread_done(ngx_http_request_t *r, ngx_event_t *ev)
{
    ngx_http_set_log_request(r->connection->log, r);

    if (ev->timedout) {
        ev->timedout = 0;

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "nango: a thread has been waiting for the disk for a "
                      "minute");

        ngx_add_timer(ev, NGX_HTTP_NANGO_TASK_TIMEOUT);

        return NGX_AGAIN;
    }

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    r->main->blocked--;
    r->aio = 0;

    return NGX_OK;
}


/*
 * nginx has left that to the write handler of the request that it was told of,
 * which beside other subrequests need not be this one.
 */

void
ngx_http_nango_thread_gone(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

    ngx_http_finalize_request(r->main, NGX_ERROR);
    ngx_http_run_posted_requests(c);
}
