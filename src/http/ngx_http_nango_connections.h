/*
 * Copyright (C) nginx-nango authors
 *
 * The methods of nango_connections, and what they share.
 */

#ifndef _NGX_HTTP_NANGO_CONNECTIONS_H_INCLUDED_
#define _NGX_HTTP_NANGO_CONNECTIONS_H_INCLUDED_


#include "ngx_http_nango.h"
#include "ngx_http_nango_look.h"

#include "nango_query.h"


/* Content handlers. */
ngx_int_t ngx_http_nango_connections_verify(ngx_http_request_t *r);
ngx_int_t ngx_http_nango_connections_delete(ngx_http_request_t *r);

/*
 * Who asks and for what.  NGX_OK, or NGX_DECLINED and the request has been
 * answered with *rc.
 */
ngx_int_t ngx_http_nango_query(ngx_http_request_t *r, ngx_array_t *owners,
    nango_query_t *query, ngx_int_t *rc);

/*
 * Appends an event of ours, and looks when it is in the state.  With unseen,
 * see nango_write_t, it may be overtaken: then overtaken is looked with
 * instead.  NGX_AGAIN, or what an answer returned.
 */
ngx_int_t ngx_http_nango_record(ngx_http_request_t *r,
    ngx_nango_environment_t *env, nango_source_e source,
    const nango_event_t *event, ngx_http_nango_look_t *look, uint64_t unseen,
    ngx_http_nango_look_t *overtaken);

/* Why not has been logged: 503. */
ngx_int_t ngx_http_nango_not_recorded(ngx_http_request_t *r);


#endif /* _NGX_HTTP_NANGO_CONNECTIONS_H_INCLUDED_ */
