/*
 * Copyright (C) nginx-nango authors
 *
 * nango_session_limit rate=30r/m burst=20 | off;
 *
 * How often one owner may make us ask Nango for something, in all workers
 * together.  limit_req cannot do this: it decides before auth_request has said
 * who is asking.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_shared.h"


#define NGX_HTTP_NANGO_LIMIT_INTERVAL  2000     /* ms: 30 a minute */
#define NGX_HTTP_NANGO_LIMIT_BURST     20


char *
ngx_http_nango_session_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    size_t       len;
    u_char      *p;
    ngx_int_t    n, scale;
    ngx_str_t   *value;
    ngx_uint_t   i;

    if (nlcf->limit_interval != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        nlcf->limit_interval = 0;
        nlcf->limit_burst = 0;
        return NGX_CONF_OK;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "rate=", 5) == 0) {

            p = value[i].data + 5;
            len = value[i].len - 5;
            scale = 1000;

            if (len > 3 && ngx_strncmp(p + len - 3, "r/s", 3) == 0) {
                len -= 3;

            } else if (len > 3 && ngx_strncmp(p + len - 3, "r/m", 3) == 0) {
                len -= 3;
                scale = 60 * 1000;

            } else {
                len = 0;
            }

            n = ngx_atoi(p, len);

            if (n < 1 || n > scale) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid rate \"%V\"; write it as "
                                   "\"rate=30r/m\" or \"rate=2r/s\", 1000r/s "
                                   "at most", &value[i]);
                return NGX_CONF_ERROR;
            }

            if (nlcf->limit_interval != NGX_CONF_UNSET_MSEC) {
                goto twice;
            }

            nlcf->limit_interval = scale / n;
            continue;
        }

        if (ngx_strncmp(value[i].data, "burst=", 6) == 0) {

            n = ngx_atoi(value[i].data + 6, value[i].len - 6);

            if (n < 0 || n > 10000) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid burst \"%V\"; it is a number from "
                                   "0 to 10000", &value[i]);
                return NGX_CONF_ERROR;
            }

            if (nlcf->limit_burst != NGX_CONF_UNSET_UINT) {
                goto twice;
            }

            nlcf->limit_burst = n;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\"; there are \"rate=\" and "
                           "\"burst=\", or \"off\" alone", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (nlcf->limit_interval == NGX_CONF_UNSET_MSEC) {
        nlcf->limit_interval = NGX_HTTP_NANGO_LIMIT_INTERVAL;
    }

    if (nlcf->limit_burst == NGX_CONF_UNSET_UINT) {
        nlcf->limit_burst = 0;
    }

    return NGX_CONF_OK;

twice:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" is given twice",
                       &value[i]);
    return NGX_CONF_ERROR;
}


void
ngx_http_nango_session_limit_merge(ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    /* Both are of one line: they are inherited together. */

    if (conf->limit_interval == NGX_CONF_UNSET_MSEC) {
        conf->limit_interval = prev->limit_interval;
        conf->limit_burst = prev->limit_burst;
    }

    if (conf->limit_interval == NGX_CONF_UNSET_MSEC) {
        conf->limit_interval = NGX_HTTP_NANGO_LIMIT_INTERVAL;
        conf->limit_burst = NGX_HTTP_NANGO_LIMIT_BURST;
    }
}


ngx_int_t
ngx_http_nango_limited(ngx_http_request_t *r, ngx_nango_environment_t *env,
    nango_tag_t *owners, ngx_uint_t n, ngx_int_t *rc)
{
    u_char                      key[NANGO_KEY_LEN], one[NANGO_KEY_LEN];
    uint32_t                    limit[2], hash;
    ngx_msec_t                  wait;
    ngx_uint_t                  i, k;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->limit_interval == 0) {
        return NGX_OK;
    }

    ngx_memzero(key, NANGO_KEY_LEN);

    for (i = 0; i < n; i++) {

        if (nango_owner_key(one, ngx_nango_str(&env->name), owners[i].name,
                            owners[i].value)
            != 0)
        {
            *rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
            return NGX_DECLINED;
        }

        for (k = 0; k < NANGO_KEY_LEN; k++) {
            key[k] ^= one[k];
        }
    }

    /*
     * A bucket that empties once a minute is full for one that does so each
     * second: locations share those of the same limit only.
     */

    limit[0] = (uint32_t) nlcf->limit_interval;
    limit[1] = (uint32_t) nlcf->limit_burst;

    hash = ngx_murmur_hash2((u_char *) limit, sizeof(limit));

    for (k = 0; k < sizeof(hash); k++) {
        key[k] ^= (u_char) (hash >> (8 * k));
    }

    wait = ngx_nango_limit(key, nlcf->limit_interval, nlcf->limit_burst);

    if (wait == 0) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "an owner in environment \"%V\" asks more often than "
                  "nango_session_limit allows", &env->name);

    *rc = ngx_http_nango_rate_limited(r, (time_t) (wait + 999) / 1000);

    return NGX_DECLINED;
}
