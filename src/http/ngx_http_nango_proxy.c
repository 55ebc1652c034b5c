/*
 * Copyright (C) nginx-nango authors
 *
 * What a request needs for Nango's proxy, which calls a provider with the
 * connection's credentials: our key, and which connection.  All that a client
 * could say about either is dropped, and so is what would send the credentials
 * elsewhere (Base-Url-Override), repeat the call (Retries, Retry-On), or reach
 * the provider as a header of the client's choice (Nango-Proxy-...).
 *
 * Our key is for that one location.  Where the request goes on elsewhere, by
 * error_page, X-Accel-Redirect or a mirror, it has the client's headers again.
 */

#include "ngx_http_nango_require.h"


/* What a request had before. */
typedef struct {
    ngx_table_elt_t   *ours;
    ngx_table_elt_t   *authorization;
    ngx_list_t         headers;
    ngx_list_part_t   *part;        /* where headers was, as its last part */
#if (nginx_version >= 1023000)
    ngx_table_elt_t   *cookie;
#else
    ngx_uint_t         cookies;
#endif
} ngx_http_nango_proxied_t;


static void ngx_http_nango_proxy_cleanup(void *data);
static ngx_uint_t ngx_http_nango_proxy_drops(ngx_table_elt_t *h);
static ngx_table_elt_t *ngx_http_nango_proxy_add(ngx_http_request_t *r,
    ngx_list_t *headers, const char *name, const char *lowcase,
    nango_str_t value);


ngx_uint_t
ngx_http_nango_proxy_says(nango_str_t id)
{
    size_t  i;

    for (i = 0; i < id.len; i++) {
        if (id.data[i] < ' ' || id.data[i] > '~') {
            return 0;
        }
    }

    return id.len && id.data[0] != ' ' && id.data[id.len - 1] != ' ';
}


ngx_int_t
ngx_http_nango_proxy(ngx_http_request_t *r, ngx_nango_environment_t *env,
    nango_str_t integration, nango_str_t connection_id)
{
    ngx_uint_t                 i;
    ngx_list_t                 headers;
    nango_str_t                key;
    ngx_list_part_t           *part;
    ngx_table_elt_t           *h, *copy, *authorization;
    ngx_pool_cleanup_t        *cln;
    ngx_http_nango_proxied_t  *before;

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_nango_proxied_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    if (ngx_list_init(&headers, r->pool, 20, sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (ngx_http_nango_proxy_drops(&h[i])) {
            continue;
        }

        copy = ngx_list_push(&headers);
        if (copy == NULL) {
            return NGX_ERROR;
        }

        *copy = h[i];
    }

    /* The configuration has it as a whole header for libcurl. */

    key = nango_str(env->authorization.data + sizeof("Authorization: ") - 1,
                    env->authorization.len - (sizeof("Authorization: ") - 1));

    authorization = ngx_http_nango_proxy_add(r, &headers, "Authorization",
                                             "authorization", key);

    if (authorization == NULL
        || ngx_http_nango_proxy_add(r, &headers, "Connection-Id",
                                    "connection-id", connection_id)
           == NULL
        || ngx_http_nango_proxy_add(r, &headers, "Provider-Config-Key",
                                    "provider-config-key", integration)
           == NULL)
    {
        return NGX_ERROR;
    }

    before = cln->data;

    before->ours = authorization;
    before->authorization = r->headers_in.authorization;
    before->headers = r->headers_in.headers;
    before->part = &r->headers_in.headers.part;

#if (nginx_version >= 1023000)
    before->cookie = r->headers_in.cookie;
    r->headers_in.cookie = NULL;
#else
    before->cookies = r->headers_in.cookies.nelts;
    r->headers_in.cookies.nelts = 0;
#endif

    cln->handler = ngx_http_nango_proxy_cleanup;

    r->headers_in.authorization = authorization;
    r->headers_in.headers = headers;

    /* A list knows where its last part is, which may be within itself. */

    if (headers.last == &headers.part) {
        r->headers_in.headers.last = &r->headers_in.headers.part;
    }

    return NGX_OK;
}


/* In the first phases that a request passes when it is sent elsewhere. */

ngx_int_t
ngx_http_nango_proxy_handler(ngx_http_request_t *r)
{
    ngx_list_t                *headers;
    ngx_pool_cleanup_t        *cln;
    ngx_http_nango_proxied_t  *before;

    if (!r->internal || r->headers_in.authorization == NULL) {
        return NGX_DECLINED;
    }

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_nango_proxy_cleanup) {
            continue;
        }

        before = cln->data;

        if (before->ours != r->headers_in.authorization) {
            continue;
        }

        headers = &r->headers_in.headers;

        r->headers_in.authorization = before->authorization;
        *headers = before->headers;

        if (headers->last == before->part) {
            headers->last = &headers->part;
        }

#if (nginx_version >= 1023000)
        r->headers_in.cookie = before->cookie;
#else
        r->headers_in.cookies.nelts = before->cookies;
#endif

        break;
    }

    return NGX_DECLINED;
}


/* It only marks what is found by it. */

static void
ngx_http_nango_proxy_cleanup(void *data)
{
}


static ngx_uint_t
ngx_http_nango_proxy_drops(ngx_table_elt_t *h)
{
    ngx_uint_t  i;

    static ngx_str_t  names[] = {
        ngx_string("authorization"),
        ngx_string("base-url-override"),
        ngx_string("connection-id"),
        ngx_string("cookie"),
        ngx_string("decompress"),
        ngx_string("forward-headers-on-redirect"),
        ngx_string("provider-config-key"),
        ngx_string("retries"),
        ngx_string("retry-on"),
        ngx_null_string
    };

    if (h->key.len >= 6
        && ngx_strncasecmp(h->key.data, (u_char *) "nango-", 6) == 0)
    {
        return 1;
    }

    for (i = 0; names[i].len; i++) {
        if (h->key.len == names[i].len
            && ngx_strncasecmp(h->key.data, names[i].data, names[i].len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_table_elt_t *
ngx_http_nango_proxy_add(ngx_http_request_t *r, ngx_list_t *headers,
    const char *name, const char *lowcase, nango_str_t value)
{
    u_char           *p;
    ngx_table_elt_t  *h;

    h = ngx_list_push(headers);
    if (h == NULL) {
        return NULL;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    p = ngx_pnalloc(r->pool, value.len + 1);
    if (p == NULL) {
        return NULL;
    }

    ngx_memcpy(p, value.data, value.len);
    p[value.len] = '\0';

    h->key.len = ngx_strlen(name);
    h->key.data = (u_char *) name;
    h->lowcase_key = (u_char *) lowcase;
    h->hash = ngx_hash_key((u_char *) lowcase, h->key.len);
    h->value.len = value.len;
    h->value.data = p;

    return h;
}
