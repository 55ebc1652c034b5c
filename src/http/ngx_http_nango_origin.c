/*
 * Copyright (C) nginx-nango authors
 *
 * The origin check of browser-facing endpoints, in the preaccess phase: before
 * anything is asked of an authentication service on behalf of a foreign page.
 *
 * Cookies and basic authentication come along with a request that a foreign
 * page makes, so without this check any page could act for its visitor.  Own
 * is an origin whose host and port are those of the Host header; the scheme is
 * not compared, since TLS may have ended before us.  What sends no Origin and
 * no Sec-Fetch-Site is no browser, or one too old to be fooled usefully.
 */

#include "ngx_http_nango.h"


static ngx_table_elt_t *ngx_http_nango_find_header(ngx_http_request_t *r,
    const char *name, size_t len);
static ngx_uint_t ngx_http_nango_own_origin(ngx_http_request_t *r,
    ngx_str_t *origin);
static void ngx_http_nango_split_host(ngx_str_t *s, ngx_uint_t tls,
    ngx_str_t *host, ngx_int_t *port);


ngx_int_t
ngx_http_nango_origin_handler(ngx_http_request_t *r)
{
    ngx_table_elt_t            *origin, *site;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (!nlcf->endpoint.browser || r != r->main) {
        return NGX_DECLINED;
    }

    origin = ngx_http_nango_find_header(r, "origin", sizeof("origin") - 1);

    if (origin) {

        if (ngx_http_nango_own_origin(r, &origin->value)) {
            return NGX_DECLINED;
        }

    } else {
        site = ngx_http_nango_find_header(r, "sec-fetch-site",
                                          sizeof("sec-fetch-site") - 1);

        if (site == NULL
            || site->value.len != sizeof("cross-site") - 1
            || ngx_strncasecmp(site->value.data, (u_char *) "cross-site",
                               sizeof("cross-site") - 1)
               != 0)
        {
            return NGX_DECLINED;
        }
    }

    ngx_http_finalize_request(r,
        ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN, "origin_not_allowed",
                             "Pages of this origin may not ask"));

    return NGX_DONE;
}


static ngx_table_elt_t *
ngx_http_nango_find_header(ngx_http_request_t *r, const char *name, size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash != 0 && h[i].key.len == len
            && ngx_strncmp(h[i].lowcase_key, name, len) == 0)
        {
            return &h[i];
        }
    }
}


static ngx_uint_t
ngx_http_nango_own_origin(ngx_http_request_t *r, ngx_str_t *origin)
{
    ngx_str_t   value, host, own;
    ngx_int_t   port, own_port;
    ngx_uint_t  tls;

    if (r->headers_in.host == NULL) {
        return 0;
    }

    value = *origin;

    if (value.len > 8
        && ngx_strncasecmp(value.data, (u_char *) "https://", 8) == 0)
    {
        value.data += 8;
        value.len -= 8;
        tls = 1;

    } else if (value.len > 7
               && ngx_strncasecmp(value.data, (u_char *) "http://", 7) == 0)
    {
        value.data += 7;
        value.len -= 7;
        tls = 0;

    } else {
        /* "null", an extension, nonsense */
        return 0;
    }

    ngx_http_nango_split_host(&value, tls, &host, &port);

    /*
     * A port that is left out is the scheme's, and the scheme seen by the
     * browser is the one in Origin.
     */

    ngx_http_nango_split_host(&r->headers_in.host->value, tls, &own,
                              &own_port);

    return port != NGX_ERROR && port == own_port && host.len != 0
           && host.len == own.len
           && ngx_strncasecmp(host.data, own.data, host.len) == 0;
}


static void
ngx_http_nango_split_host(ngx_str_t *s, ngx_uint_t tls, ngx_str_t *host,
    ngx_int_t *port)
{
    u_char  *p, *last, *colon;

    last = s->data + s->len;
    colon = NULL;

    for (p = s->data; p < last; p++) {

        if (*p == ':') {
            colon = p;

        } else if (*p == ']') {
            colon = NULL;
        }
    }

    host->data = s->data;

    if (colon == NULL) {
        host->len = s->len;
        *port = tls ? 443 : 80;
        return;
    }

    host->len = colon - s->data;
    *port = ngx_atoi(colon + 1, last - colon - 1);
}
