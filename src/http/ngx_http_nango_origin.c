/*
 * Copyright (C) nginx-nango authors
 *
 * nango_allow_origin origin ...;
 *
 * The origin check of browser-facing endpoints, in the preaccess phase: before
 * anything is asked of an authentication service on behalf of a foreign page,
 * and before a preflight, which carries no cookie, would fail there.
 *
 * Cookies and basic authentication come along with a request that a foreign
 * page makes, so without this check any page could act for its visitor.  Own
 * is an origin whose host and port are those of the Host header; the scheme is
 * not compared, since TLS may have ended before us.  What sends no Origin and
 * no Sec-Fetch-Site is no browser, or one too old to be fooled usefully.
 *
 * Pages of the origins in the list may ask as well; the header filter tells
 * their browser so on every answer, nginx's own 401 included, since a page
 * cannot read what it may not see.
 */

#include "ngx_http_nango.h"


/* How long a browser may remember a preflight, in seconds. */
#define NGX_HTTP_NANGO_PREFLIGHT_AGE  "600"


/* An origin, or with a star all those below a domain. */
typedef struct {
    ngx_str_t    host;              /* lower case; of a wildcard: ".host" */
    ngx_int_t    port;
    unsigned     tls:1;
    unsigned     wildcard:1;
} ngx_http_nango_origin_t;


typedef enum {
    NGX_HTTP_NANGO_NO_ORIGIN = 0,   /* no page of another origin asks */
    NGX_HTTP_NANGO_OWN,
    NGX_HTTP_NANGO_LISTED,
    NGX_HTTP_NANGO_FOREIGN
} ngx_http_nango_origin_e;


static ngx_http_nango_origin_e ngx_http_nango_origin(ngx_http_request_t *r,
    ngx_http_nango_loc_conf_t *nlcf, ngx_str_t **value);
static ngx_uint_t ngx_http_nango_own_origin(ngx_http_request_t *r,
    ngx_str_t *origin);
static ngx_uint_t ngx_http_nango_listed_origin(ngx_array_t *origins,
    ngx_str_t *origin);
static ngx_int_t ngx_http_nango_split_origin(ngx_str_t *origin,
    ngx_str_t *host, ngx_int_t *port);
static void ngx_http_nango_split_host(ngx_str_t *s, ngx_uint_t tls,
    ngx_str_t *host, ngx_int_t *port);
static ngx_uint_t ngx_http_nango_origin_host(ngx_str_t *host);
static ngx_int_t ngx_http_nango_preflight(ngx_http_request_t *r,
    ngx_http_nango_loc_conf_t *nlcf, ngx_str_t *method);
static ngx_int_t ngx_http_nango_origin_filter(ngx_http_request_t *r);
static void ngx_http_nango_origin_clear(ngx_http_request_t *r);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


char *
ngx_http_nango_allow_origin(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_int_t                 tls;
    ngx_str_t                *value, host;
    ngx_uint_t                i;
    ngx_http_nango_origin_t  *origin;

    if (nlcf->origins == NGX_CONF_UNSET_PTR) {
        nlcf->origins = ngx_array_create(cf->pool, cf->args->nelts,
                                         sizeof(ngx_http_nango_origin_t));
        if (nlcf->origins == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        origin = ngx_array_push(nlcf->origins);
        if (origin == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(origin, sizeof(ngx_http_nango_origin_t));

        tls = ngx_http_nango_split_origin(&value[i], &origin->host,
                                          &origin->port);

        if (tls == NGX_ERROR) {
            goto invalid;
        }

        origin->tls = tls;

        ngx_strlow(origin->host.data, origin->host.data, origin->host.len);

        host = origin->host;

        if (host.len > 2 && host.data[0] == '*' && host.data[1] == '.') {
            origin->wildcard = 1;
            origin->host.data++;
            origin->host.len--;

            host.data += 2;
            host.len -= 2;
        }

        if (!ngx_http_nango_origin_host(&host)
            || (origin->wildcard && host.data[0] == '['))
        {
            goto invalid;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid origin \"%V\"; it must be like "
                       "\"https://app.example.com\", "
                       "\"https://*.example.com\" or "
                       "\"http://localhost:3000\", without a path, and "
                       "never \"*\" alone", &value[i]);
    return NGX_CONF_ERROR;
}


void
ngx_http_nango_origin_init(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_nango_origin_filter;
}


ngx_int_t
ngx_http_nango_origin_handler(ngx_http_request_t *r)
{
    ngx_str_t                  *origin;
    ngx_table_elt_t            *method;
    ngx_http_nango_origin_e     rc;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    /* A link to the status page may be anywhere; acts are for its own page. */

    if ((!nlcf->browser
         && !(nlcf->endpoint.manage && r->method == NGX_HTTP_POST))
        || r != r->main)
    {
        return NGX_DECLINED;
    }

    rc = ngx_http_nango_origin(r, nlcf, &origin);

    if (rc == NGX_HTTP_NANGO_FOREIGN) {
        ngx_http_finalize_request(r,
            ngx_http_nango_error(r, NGX_HTTP_FORBIDDEN, "origin_not_allowed",
                                 "Pages of this origin may not ask"));

        return NGX_DONE;
    }

    if (rc == NGX_HTTP_NANGO_LISTED && r->method == NGX_HTTP_OPTIONS) {

        method = ngx_http_nango_find_header(r,
                          "access-control-request-method",
                          sizeof("access-control-request-method") - 1, NULL);

        if (method) {
            ngx_http_finalize_request(r,
                ngx_http_nango_preflight(r, nlcf, &method->value));

            return NGX_DONE;
        }
    }

    return NGX_DECLINED;
}


static ngx_http_nango_origin_e
ngx_http_nango_origin(ngx_http_request_t *r, ngx_http_nango_loc_conf_t *nlcf,
    ngx_str_t **value)
{
    ngx_table_elt_t  *origin, *site;

    origin = ngx_http_nango_find_header(r, "origin", sizeof("origin") - 1,
                                        NULL);

    if (origin == NULL) {

        site = ngx_http_nango_find_header(r, "sec-fetch-site",
                                          sizeof("sec-fetch-site") - 1, NULL);

        if (site
            && site->value.len == sizeof("cross-site") - 1
            && ngx_strncasecmp(site->value.data, (u_char *) "cross-site",
                               sizeof("cross-site") - 1)
               == 0)
        {
            return NGX_HTTP_NANGO_FOREIGN;
        }

        return NGX_HTTP_NANGO_NO_ORIGIN;
    }

    /* A page has one. */

    if (ngx_http_nango_find_header(r, "origin", sizeof("origin") - 1, origin))
    {
        return NGX_HTTP_NANGO_FOREIGN;
    }

    *value = &origin->value;

    if (ngx_http_nango_own_origin(r, &origin->value)) {
        return NGX_HTTP_NANGO_OWN;
    }

    if (nlcf->origins
        && ngx_http_nango_listed_origin(nlcf->origins, &origin->value))
    {
        return NGX_HTTP_NANGO_LISTED;
    }

    return NGX_HTTP_NANGO_FOREIGN;
}


ngx_table_elt_t *
ngx_http_nango_find_header(ngx_http_request_t *r, const char *name, size_t len,
    ngx_table_elt_t *but)
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

        if (h[i].hash != 0 && &h[i] != but && h[i].key.len == len
            && ngx_strncmp(h[i].lowcase_key, name, len) == 0)
        {
            return &h[i];
        }
    }
}


static ngx_uint_t
ngx_http_nango_own_origin(ngx_http_request_t *r, ngx_str_t *origin)
{
    ngx_str_t  host, asked, own;
    ngx_int_t  port, own_port, tls;

    if (r->headers_in.host) {
        asked = r->headers_in.host->value;

    } else if (r->host_start) {

        /* HTTP/3 has an ":authority", of which nginx makes no header. */

        asked.data = r->host_start;
        asked.len = r->host_end - r->host_start;

    } else {
        return 0;
    }

    tls = ngx_http_nango_split_origin(origin, &host, &port);

    if (tls == NGX_ERROR) {
        return 0;
    }

    /*
     * A port that is left out is the scheme's, and the scheme seen by the
     * browser is the one in Origin.
     */

    ngx_http_nango_split_host(&asked, tls, &own, &own_port);

    return port == own_port
           && host.len == own.len
           && ngx_strncasecmp(host.data, own.data, host.len) == 0;
}


static ngx_uint_t
ngx_http_nango_listed_origin(ngx_array_t *origins, ngx_str_t *origin)
{
    ngx_int_t                 port, tls;
    ngx_str_t                 host;
    ngx_uint_t                i;
    ngx_http_nango_origin_t  *o;

    tls = ngx_http_nango_split_origin(origin, &host, &port);

    if (tls == NGX_ERROR || !ngx_http_nango_origin_host(&host)) {
        return 0;
    }

    o = origins->elts;

    for (i = 0; i < origins->nelts; i++) {

        if ((ngx_int_t) o[i].tls != tls || o[i].port != port) {
            continue;
        }

        if (o[i].wildcard) {

            if (host.len > o[i].host.len
                && ngx_strncasecmp(host.data + host.len - o[i].host.len,
                                   o[i].host.data, o[i].host.len)
                   == 0)
            {
                return 1;
            }

            continue;
        }

        if (host.len == o[i].host.len
            && ngx_strncasecmp(host.data, o[i].host.data, host.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * 1: https, 0: http; NGX_ERROR: "null", an extension's origin, or none at all.
 */

static ngx_int_t
ngx_http_nango_split_origin(ngx_str_t *origin, ngx_str_t *host,
    ngx_int_t *port)
{
    ngx_int_t  tls;
    ngx_str_t  value;

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
        return NGX_ERROR;
    }

    ngx_http_nango_split_host(&value, tls, host, port);

    if (*port < 1 || *port > 65535 || host->len == 0
        || ngx_strlchr(host->data, host->data + host->len, '/')
        || ngx_strlchr(host->data, host->data + host->len, '@'))
    {
        return NGX_ERROR;
    }

    return tls;
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


/*
 * A name or an address as a browser writes it: one that holds anything else
 * could end in a listed domain and belong to another.
 */

static ngx_uint_t
ngx_http_nango_origin_host(ngx_str_t *host)
{
    u_char  *p, *last, c;

    p = host->data;
    last = p + host->len;

    if (host->len == 0 || *p == '.') {
        return 0;
    }

    if (*p == '[') {
        last--;

        if (host->len < 4 || *last != ']') {
            return 0;
        }

        for (p++; p < last; p++) {
            c = (u_char) (*p | 0x20);

            if (!((*p >= '0' && *p <= '9') || (c >= 'a' && c <= 'f')
                  || *p == ':' || *p == '.'))
            {
                return 0;
            }
        }

        return 1;
    }

    for ( /* void */ ; p < last; p++) {
        c = (u_char) (*p | 0x20);

        if (!((*p >= '0' && *p <= '9') || (c >= 'a' && c <= 'z')
              || *p == '.' || *p == '-' || *p == '_'))
        {
            return 0;
        }
    }

    return 1;
}


/* The page will ask; what it may not do is said when it has. */

static ngx_int_t
ngx_http_nango_preflight(ngx_http_request_t *r,
    ngx_http_nango_loc_conf_t *nlcf, ngx_str_t *method)
{
    ngx_str_t         value, *methods;
    ngx_uint_t        i;
    ngx_table_elt_t  *headers;

    static ngx_str_t  age = ngx_string(NGX_HTTP_NANGO_PREFLIGHT_AGE);
    static ngx_str_t  none = ngx_null_string;

    methods = nlcf->endpoint.methods.len ? &nlcf->endpoint.methods : method;

    /* They are echoed: nothing but what a token is made of. */

    for (i = 0; i < methods->len; i++) {
        if (methods->data[i] < ' ' || methods->data[i] > '~') {
            methods = &none;
        }
    }

    if (ngx_http_nango_header(r, "Access-Control-Allow-Methods", methods)
        != NGX_OK
        || ngx_http_nango_header(r, "Access-Control-Max-Age", &age) != NGX_OK)
    {
        return NGX_ERROR;
    }

    headers = ngx_http_nango_find_header(r, "access-control-request-headers",
                             sizeof("access-control-request-headers") - 1,
                             NULL);

    if (headers) {
        value = headers->value;

        for (i = 0; i < value.len; i++) {
            if (value.data[i] < ' ' || value.data[i] > '~') {
                value.len = 0;
            }
        }

        if (value.len
            && ngx_http_nango_header(r, "Access-Control-Allow-Headers", &value)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_nango_answer(r, NGX_HTTP_NO_CONTENT, &none);
}


static ngx_int_t
ngx_http_nango_origin_filter(ngx_http_request_t *r)
{
    ngx_str_t                  *origin;
    ngx_http_nango_loc_conf_t  *nlcf;

    static ngx_str_t  vary = ngx_string("Origin");
    static ngx_str_t  yes = ngx_string("true");
    static ngx_str_t  exposed = ngx_string("X-Nango-Error, Retry-After");

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (!nlcf->browser || r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    if (r->upstream) {
        ngx_http_nango_origin_clear(r);
    }

    if (nlcf->origins == NULL) {
        return ngx_http_next_header_filter(r);
    }

    if (ngx_http_nango_header(r, "Vary", &vary) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_nango_origin(r, nlcf, &origin) == NGX_HTTP_NANGO_LISTED) {

        if (ngx_http_nango_header(r, "Access-Control-Allow-Origin", origin)
            != NGX_OK
            || ngx_http_nango_header(r, "Access-Control-Allow-Credentials",
                                     &yes)
               != NGX_OK
            || ngx_http_nango_header(r, "Access-Control-Expose-Headers",
                                     &exposed)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_next_header_filter(r);
}


/* Who may read this is said here, and not by what was proxied to. */

static void
ngx_http_nango_origin_clear(ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_out.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len > sizeof("Access-Control-") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "Access-Control-",
                               sizeof("Access-Control-") - 1)
               == 0)
        {
            h[i].hash = 0;
        }
    }
}
