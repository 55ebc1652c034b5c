/*
 * Copyright (C) nginx-nango authors
 *
 * nango_integration_default id key[.key] value;
 * nango_integration_docs id url;
 * nango_webhook_url url;
 *
 * What a session carries besides its owner and its integrations.  Values are
 * worked out for each request, escaped as JSON, and left out when they are
 * empty; those of integrations that the session is not for are left out too,
 * since Nango refuses ids that it does not know.
 */

#include "ngx_http_nango.h"


typedef struct {
    ngx_str_t                  integration;
    ngx_str_t                  key;
    ngx_str_t                  name;        /* empty: the key's own value */
    ngx_http_complex_value_t   value;
} ngx_http_nango_extra_t;


static char *ngx_http_nango_extra(ngx_conf_t *cf, ngx_array_t **extras,
    ngx_str_t *integration, ngx_str_t *value, ngx_http_nango_extra_t **extra);
static char *ngx_http_nango_extra_fixed(ngx_conf_t *cf,
    ngx_http_complex_value_t *cv, ngx_str_t *value);
static ngx_int_t ngx_http_nango_extra_value(ngx_http_request_t *r,
    ngx_http_nango_extra_t *extra, nango_session_t *session, ngx_str_t *value);
static ngx_uint_t ngx_http_nango_extra_url(ngx_str_t *value);


char *
ngx_http_nango_integration_default(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char                    *rv;
    u_char                  *dot;
    ngx_str_t               *value, key, name;
    ngx_http_nango_extra_t  *extra;

    value = cf->args->elts;

    key = value[2];
    ngx_str_null(&name);

    dot = ngx_strlchr(key.data, key.data + key.len, '.');

    if (dot) {
        name.data = dot + 1;
        name.len = key.data + key.len - name.data;
        key.len = dot - key.data;
    }

    if ((dot == NULL && nango_str_is(ngx_nango_str(&key), "user_scopes"))
        || (name.len
            && (nango_str_is(ngx_nango_str(&key), "authorization_params")
                || nango_str_is(ngx_nango_str(&key), "connection_config"))
            && nango_utf16_len(ngx_nango_str(&name)) > 0))
    {
        rv = ngx_http_nango_extra(cf, &nlcf->defaults, &value[1], &value[3],
                                  &extra);
        if (rv != NGX_CONF_OK) {
            return rv;
        }

        extra->key = key;
        extra->name = name;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid key \"%V\"; there are \"user_scopes\", "
                       "\"authorization_params.NAME\" and "
                       "\"connection_config.NAME\"", &value[2]);
    return NGX_CONF_ERROR;
}


char *
ngx_http_nango_integration_docs(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    char                    *rv;
    ngx_str_t               *value;
    ngx_http_nango_extra_t  *extra;

    value = cf->args->elts;

    rv = ngx_http_nango_extra(cf, &nlcf->docs, &value[1], &value[2], &extra);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_nango_extra_fixed(cf, &extra->value, &value[2]);
}


char *
ngx_http_nango_webhook_url(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    ngx_str_t                         *value;

    if (nlcf->webhook_url != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    nlcf->webhook_url = ngx_pcalloc(cf->pool,
                                    sizeof(ngx_http_complex_value_t));
    if (nlcf->webhook_url == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_nango_compile(cf, &value[1], nlcf->webhook_url) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return ngx_http_nango_extra_fixed(cf, nlcf->webhook_url, &value[1]);
}


/* A URL without variables is known to be one, or none, already. */

static char *
ngx_http_nango_extra_fixed(ngx_conf_t *cf, ngx_http_complex_value_t *cv,
    ngx_str_t *value)
{
    if (cv->lengths || value->len == 0 || ngx_http_nango_extra_url(value)) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid URL \"%V\"; it must begin with "
                       "\"https://\" or \"http://\"", value);
    return NGX_CONF_ERROR;
}


static char *
ngx_http_nango_extra(ngx_conf_t *cf, ngx_array_t **extras,
    ngx_str_t *integration, ngx_str_t *value, ngx_http_nango_extra_t **extra)
{

    if (!nango_integration_valid(ngx_nango_str(integration))) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid integration \"%V\"; an id has 1 to 255 "
                           "letters, digits, spaces and \"~:.@_-\"",
                           integration);
        return NGX_CONF_ERROR;
    }

    if (*extras == NGX_CONF_UNSET_PTR) {
        *extras = ngx_array_create(cf->pool, 2,
                                   sizeof(ngx_http_nango_extra_t));
        if (*extras == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    *extra = ngx_array_push(*extras);
    if (*extra == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(*extra, sizeof(ngx_http_nango_extra_t));

    (*extra)->integration = *integration;

    if (ngx_http_nango_compile(cf, value, &(*extra)->value) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_nango_session_extras(ngx_http_request_t *r, nango_session_t *session)
{
    ngx_int_t                   rc;
    ngx_str_t                   value;
    ngx_uint_t                  i;
    nango_session_docs_t       *docs;
    nango_session_default_t    *d;
    ngx_http_nango_extra_t     *extra;
    ngx_http_nango_loc_conf_t  *nlcf;

    nlcf = ngx_http_get_module_loc_conf(r, ngx_http_nango_module);

    if (nlcf->defaults) {

        d = ngx_pcalloc(r->pool, nlcf->defaults->nelts
                                 * sizeof(nango_session_default_t));
        if (d == NULL) {
            return NGX_ERROR;
        }

        session->defaults = d;
        extra = nlcf->defaults->elts;

        for (i = 0; i < nlcf->defaults->nelts; i++) {

            rc = ngx_http_nango_extra_value(r, &extra[i], session, &value);

            if (rc == NGX_ERROR) {
                return NGX_ERROR;
            }

            if (rc == NGX_OK) {
                d->integration = ngx_nango_str(&extra[i].integration);
                d->key = ngx_nango_str(&extra[i].key);
                d->name = ngx_nango_str(&extra[i].name);
                d->value = ngx_nango_str(&value);

                d++;
                session->ndefaults++;
            }
        }
    }

    if (nlcf->docs) {

        docs = ngx_pcalloc(r->pool, nlcf->docs->nelts
                                    * sizeof(nango_session_docs_t));
        if (docs == NULL) {
            return NGX_ERROR;
        }

        session->docs = docs;
        extra = nlcf->docs->elts;

        for (i = 0; i < nlcf->docs->nelts; i++) {

            rc = ngx_http_nango_extra_value(r, &extra[i], session, &value);

            if (rc == NGX_ERROR) {
                return NGX_ERROR;
            }

            if (rc == NGX_OK && !ngx_http_nango_extra_url(&value)) {
                ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                              "nango_integration_docs for integration \"%V\" "
                              "is left out: it is no http or https URL",
                              &extra[i].integration);

            } else if (rc == NGX_OK) {
                docs->integration = ngx_nango_str(&extra[i].integration);
                docs->url = ngx_nango_str(&value);

                docs++;
                session->ndocs++;
            }
        }
    }

    if (nlcf->webhook_url) {

        if (ngx_http_complex_value(r, nlcf->webhook_url, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len && !ngx_http_nango_extra_url(&value)) {
            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "nango_webhook_url is left out: it is no http or "
                          "https URL");

            ngx_str_null(&value);
        }

        session->webhook_url = ngx_nango_str(&value);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_nango_extra_url(ngx_str_t *value)
{
    return ((value->len > 8
             && ngx_strncmp(value->data, "https://", 8) == 0)
            || (value->len > 7
                && ngx_strncmp(value->data, "http://", 7) == 0))
           && nango_utf16_len(ngx_nango_str(value)) > 0;
}


/* NGX_DECLINED: it is left out. */

static ngx_int_t
ngx_http_nango_extra_value(ngx_http_request_t *r,
    ngx_http_nango_extra_t *extra, nango_session_t *session, ngx_str_t *value)
{
    ngx_uint_t   i;
    nango_str_t  id;

    id = ngx_nango_str(&extra->integration);

    if (session->connection_id.data) {

        if (!nango_str_eq(session->integration_id, id)) {
            return NGX_DECLINED;
        }

    } else if (session->nintegrations) {

        for (i = 0; i < session->nintegrations; i++) {
            if (nango_str_eq(session->integrations[i], id)) {
                break;
            }
        }

        if (i == session->nintegrations) {
            return NGX_DECLINED;
        }
    }

    if (ngx_http_complex_value(r, &extra->value, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value->len == 0) {
        return NGX_DECLINED;
    }

    if (nango_utf16_len(ngx_nango_str(value)) < 0) {
        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "a value for integration \"%V\" is left out: it is no "
                      "UTF-8 or has control characters", &extra->integration);
        return NGX_DECLINED;
    }

    return NGX_OK;
}
