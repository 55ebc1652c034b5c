/*
 * Copyright (C) nginx-nango authors
 *
 * See ngx_http_nango_text.h.
 */

#include "ngx_http_nango_text.h"


#define NGX_HTTP_NANGO_TEXT_SIZE  8192


void
ngx_http_nango_text_begin(ngx_http_nango_text_t *t, ngx_pool_t *pool)
{
    ngx_memzero(t, sizeof(ngx_http_nango_text_t));

    t->pool = pool;
}


void
ngx_http_nango_text(ngx_http_nango_text_t *t, const char *fmt, ...)
{
    u_char   buf[NGX_HTTP_NANGO_TEXT_MAX], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    ngx_http_nango_text_add(t, buf, p - buf);
}


void
ngx_http_nango_text_add(ngx_http_nango_text_t *t, const u_char *data,
    size_t len)
{
    u_char  *p;
    size_t   used, size;

    if (t->failed || len == 0) {
        return;
    }

    if ((size_t) (t->end - t->pos) < len) {

        used = t->pos - t->start;
        size = ngx_max(2 * used, NGX_HTTP_NANGO_TEXT_SIZE) + len;

        p = ngx_palloc(t->pool, size);
        if (p == NULL) {
            t->failed = 1;
            return;
        }

        if (used) {
            ngx_memcpy(p, t->start, used);
            (void) ngx_pfree(t->pool, t->start);
        }

        t->start = p;
        t->pos = p + used;
        t->end = p + size;
    }

    t->pos = ngx_cpymem(t->pos, data, len);
}


ngx_int_t
ngx_http_nango_text_end(ngx_http_nango_text_t *t, ngx_str_t *text)
{
    text->data = t->start;
    text->len = t->pos - t->start;

    return t->failed ? NGX_ERROR : NGX_OK;
}
