/*
 * Copyright (C) nginx-nango authors
 *
 * What several parameters of the configuration are checked by: names, hosts of
 * URLs, files of certificates.
 */

#include "ngx_http_nango.h"

#include <openssl/err.h>
#include <openssl/pem.h>


#define NGX_HTTP_NANGO_NAME_MAX  64


static ngx_uint_t ngx_http_nango_conf_pem(char *name);


char *
ngx_http_nango_conf_name(ngx_conf_t *cf, ngx_str_t *name, const char *what)
{
    u_char  *p;

    if (name->len == 0 || name->len > NGX_HTTP_NANGO_NAME_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the name of the %s has 1 to %d characters", what,
                           NGX_HTTP_NANGO_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    for (p = name->data; p < name->data + name->len; p++) {

        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
            || (*p >= '0' && *p <= '9') || *p == '_' || *p == '-'
            || *p == '.')
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid %s \"%V\"; letters, digits, \"_\", \"-\" "
                           "and \".\" may be in its name", what, name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_uint_t
ngx_http_nango_conf_pem(char *name)
{
    BIO   *bio;
    X509  *cert;

    bio = BIO_new_file(name, "r");
    cert = bio ? PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL) : NULL;

    X509_free(cert);
    BIO_free(bio);

    /* nginx would log what is left. */

    ERR_clear_error();

    return cert != NULL;
}


char *
ngx_http_nango_conf_certificate(ngx_conf_t *cf, ngx_str_t *path)
{
    ngx_file_info_t  fi;

    if (ngx_conf_full_name(cf->cycle, path, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_file_info(path->data, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "the certificate's file \"%V\" cannot be read",
                           path);
        return NGX_CONF_ERROR;
    }

    if (!ngx_is_file(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the certificate's file \"%V\" is not a regular "
                           "file", path);
        return NGX_CONF_ERROR;
    }

    if (!ngx_http_nango_conf_pem((char *) path->data)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the certificate's file \"%V\" holds no "
                           "certificate in PEM", path);
        return NGX_CONF_ERROR;
    }

    /* libcurl reads it in the worker. */

    if (!(fi.st_mode & S_IROTH)) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the certificate's file \"%V\" must be readable "
                           "for the user of the worker processes", path);
    }

    return NGX_CONF_OK;
}


const char *
ngx_http_nango_url_wrong(u_char *p, u_char *last)
{
    u_char     *host, *end, c;
    ngx_int_t   port;
#if (NGX_HAVE_INET6)
    u_char      addr[16];
#endif

    for (end = p; end < last && *end != '/' && *end != '?'; end++) {
        /* void */
    }

    host = p;

    if (p < end && *p == '[') {

        host++;
        p = ngx_strlchr(host, end, ']');

#if (NGX_HAVE_INET6)
        if (p == NULL || ngx_inet6_addr(host, p - host, addr) != NGX_OK) {
            return "has an invalid IPv6 address";
        }
#else
        if (p == NULL) {
            return "has an invalid IPv6 address";
        }
#endif

        p++;

    } else {

        for ( /* void */ ; p < end && *p != ':'; p++) {
            c = (u_char) (*p | 0x20);

            if (!((c >= 'a' && c <= 'z') || (*p >= '0' && *p <= '9')
                  || *p == '-' || *p == '.' || *p == '_'))
            {
                return "has an invalid host";
            }
        }

        if (p == host) {
            return "has no host";
        }
    }

    if (p == end) {
        return NULL;
    }

    port = (*p == ':') ? ngx_atoi(p + 1, end - p - 1) : NGX_ERROR;

    return (port >= 1 && port <= 65535) ? NULL : "has an invalid port";
}


void
ngx_http_nango_url_host(ngx_str_t *url, ngx_str_t *host)
{
    u_char  *p, *last;

    p = (u_char *) ngx_strstr(url->data, "://") + 3;
    last = url->data + url->len;

    host->data = p;

    if (p < last && *p == '[') {
        while (p < last && *p != ']') {
            p++;
        }
    }

    while (p < last && *p != ':' && *p != '/' && *p != '?') {
        p++;
    }

    host->len = p - host->data;
}


ngx_uint_t
ngx_http_nango_private(ngx_str_t *url)
{
    u_char     *p;
    in_addr_t   addr;
    ngx_str_t   host;

    ngx_http_nango_url_host(url, &host);

    p = host.data;

    if (*p == '[') {
        return ngx_strncmp(p, "[::1]", 5) == 0
               || ngx_strncasecmp(p, (u_char *) "[fc", 3) == 0
               || ngx_strncasecmp(p, (u_char *) "[fd", 3) == 0
               || ngx_strncasecmp(p, (u_char *) "[fe80", 5) == 0;
    }

    addr = ntohl(ngx_inet_addr(host.data, host.len));

    if (addr != INADDR_NONE) {
        return (addr >> 24) == 127 || (addr >> 24) == 10
               || (addr >> 20) == 0xac1 || (addr >> 16) == 0xc0a8
               || (addr >> 16) == 0xa9fe;
    }

    p = host.data + host.len;

    if (ngx_strlchr(host.data, p, '.') == NULL) {
        return 1;
    }

    return (host.len > 6
            && ngx_strncasecmp(p - 6, (u_char *) ".local", 6) == 0)
           || (host.len > 9
               && ngx_strncasecmp(p - 9, (u_char *) ".internal", 9) == 0)
           || (host.len > 4
               && ngx_strncasecmp(p - 4, (u_char *) ".svc", 4) == 0);
}
