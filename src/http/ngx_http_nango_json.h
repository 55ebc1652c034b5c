/*
 * Copyright (C) nginx-nango authors
 *
 * Answers in JSON.  Whoever calls owns what is returned, which may be NULL if
 * there is no memory; jansson's own functions take that, and fail.
 */

#ifndef _NGX_HTTP_NANGO_JSON_H_INCLUDED_
#define _NGX_HTTP_NANGO_JSON_H_INCLUDED_


#include "ngx_http_nango.h"

#include "nango_state.h"

#include <jansson.h>


/* A connection as its owners may see it in this location. */
json_t *ngx_http_nango_connection_json(ngx_http_request_t *r,
    ngx_array_t *owners, nango_connection_t *c);

/* null for an absent one, and for what a damaged page may hold. */
json_t *ngx_http_nango_json_string(nango_str_t s);

/* As in JavaScript; null for 0. */
json_t *ngx_http_nango_json_time(uint64_t ms);

/* At most NANGO_STORE_ID_LEN bytes. */
json_t *ngx_http_nango_json_hex(const u_char *data, size_t len);

/* Into the request's pool; json may be NULL: NGX_ERROR. */
ngx_int_t ngx_http_nango_json_text(ngx_http_request_t *r, json_t *json,
    ngx_str_t *text);


#endif /* _NGX_HTTP_NANGO_JSON_H_INCLUDED_ */
