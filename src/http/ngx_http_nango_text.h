/*
 * Copyright (C) nginx-nango authors
 *
 * A text that grows while it is written, in a request's pool.  Without memory
 * what is written is dropped, and the end says so.
 */

#ifndef _NGX_HTTP_NANGO_TEXT_H_INCLUDED_
#define _NGX_HTTP_NANGO_TEXT_H_INCLUDED_


#include "ngx_http_nango.h"


/* What a call of ngx_http_nango_text() may come to, in bytes. */
#define NGX_HTTP_NANGO_TEXT_MAX  512


typedef struct {
    ngx_pool_t                *pool;
    u_char                    *start;
    u_char                    *pos;
    u_char                    *end;
    ngx_uint_t                 failed;
} ngx_http_nango_text_t;


void ngx_http_nango_text_begin(ngx_http_nango_text_t *t, ngx_pool_t *pool);

/* As ngx_sprintf(); for strings of others there is the next one. */
void ngx_http_nango_text(ngx_http_nango_text_t *t, const char *fmt, ...);
void ngx_http_nango_text_add(ngx_http_nango_text_t *t, const u_char *data,
    size_t len);

/* NGX_OK, NGX_ERROR. */
ngx_int_t ngx_http_nango_text_end(ngx_http_nango_text_t *t, ngx_str_t *text);


#endif /* _NGX_HTTP_NANGO_TEXT_H_INCLUDED_ */
