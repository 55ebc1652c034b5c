/*
 * Copyright (C) nginx-nango authors
 *
 * What all content directives have in common: they belong to one location, are
 * never inherited as a handler, name their environment or leave it out where
 * there is only one, and are checked when the whole configuration is known,
 * with the file and line they were read from.
 */

#include "ngx_http_nango.h"
#include "ngx_http_nango_tag.h"


static void ngx_http_nango_endpoint_warn(ngx_conf_t *cf,
    ngx_http_nango_endpoint_t *ep);


void
ngx_http_nango_conf_error(ngx_uint_t level, ngx_conf_t *cf, ngx_str_t *file,
    ngx_uint_t line, const char *fmt, ...)
{
    u_char   text[NGX_MAX_CONF_ERRSTR], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(text, text + sizeof(text) - 1, fmt, args);
    va_end(args);

    *p = '\0';

    ngx_log_error(level, cf->log, 0, "%s in %V:%ui", text, file, line);
}


char *
ngx_http_nango_endpoint(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *nlcf,
    ngx_http_handler_pt handler)
{
    ngx_str_t                  *value;
    ngx_http_core_loc_conf_t   *clcf;
    ngx_http_nango_endpoint_t  *ep;

    value = cf->args->elts;
    ep = &nlcf->endpoint;

    if (ep->handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" in a location that has \"%V\" already; "
                           "give each a location of its own",
                           &value[0], &ep->name);
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" in a location whose content comes from "
                           "another directive; give it a location of its own",
                           &value[0]);
        return NGX_CONF_ERROR;
    }

    clcf->handler = handler;

    ep->handler = handler;
    ep->name = value[0];
    ep->file = cf->conf_file->file.name;
    ep->line = cf->conf_file->line;

    return NGX_CONF_OK;
}


char *
ngx_http_nango_endpoint_merge(ngx_conf_t *cf, ngx_http_nango_loc_conf_t *prev,
    ngx_http_nango_loc_conf_t *conf)
{
    ngx_uint_t                   own;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_nango_endpoint_t   *ep;
    ngx_http_nango_main_conf_t  *nmcf;

    static ngx_str_t  end_user_id = ngx_string("end_user_id");

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);
    ep = &conf->endpoint;
    own = (ep->handler != NULL);

    if (!own) {
        /*
         * The configurations of "if" and "limit_except" replace that of their
         * location, and the latter takes the handler away with it.
         */

        if (!clcf->noname || prev->endpoint.handler == NULL) {
            return NGX_CONF_OK;
        }

        *ep = prev->endpoint;

        if (clcf->lmt_excpt && clcf->handler == NULL) {
            clcf->handler = ep->handler;
        }

        ngx_str_null(&clcf->post_action);

        return NGX_CONF_OK;
    }

    if (clcf->post_action.data) {
        /*
         * It would begin when a client leaves, in the request that our work
         * for this client still refers to, and clear its context.
         */

        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"post_action\" is ignored where \"%V\" is",
                       &ep->name);

        ngx_str_null(&clcf->post_action);
    }

    if (clcf->handler != ep->handler) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "another directive takes the place of \"%V\"; give it "
                       "a location of its own", &ep->name);
        return NGX_CONF_ERROR;
    }

    if (ep->store && nmcf->store.path.len == 0) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "\"%V\" needs a store: add \"nango_store PATH;\" to "
                       "the http block", &ep->name);
        return NGX_CONF_ERROR;
    }

    if (!ep->everywhere) {
        ep->environment = ngx_http_nango_find_environment(cf,
                                  &ep->environment_name, &ep->name, &ep->file,
                                  ep->line);

        if (ep->environment == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (ep->signing && ep->environment->signing_keys == NULL) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "\"%V\" needs a \"webhook_signing_key\" in "
                       "nango_environment \"%V\"", &ep->name,
                       &ep->environment->name);
        return NGX_CONF_ERROR;
    }

    if (ep->api && ep->environment->authorization.len == 0) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "\"%V\" needs an \"api_key\" in nango_environment "
                       "\"%V\"", &ep->name, &ep->environment->name);
        return NGX_CONF_ERROR;
    }

    if (ep->browser && conf->owners == NULL) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "\"%V\" needs to know who is asking: add, for "
                       "instance, \"nango_owner end_user_id $remote_user;\"",
                       &ep->name);
        return NGX_CONF_ERROR;
    }

    if (ep->session
        && ep->environment->session_format == NANGO_SESSION_END_USER
        && ngx_http_nango_tag_find(conf->owners, &end_user_id) == NULL
        && (conf->tags == NULL
            || ngx_http_nango_tag_find(conf->tags, &end_user_id) == NULL))
    {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, &ep->file, ep->line,
                       "\"%V\" needs a nango_owner or nango_tag "
                       "\"end_user_id\": \"session_format end_user\" is sent "
                       "with it", &ep->name);
        return NGX_CONF_ERROR;
    }

    if (ep->browser) {
        ngx_http_nango_owners_check(cf, conf->owners, &ep->name, &ep->file,
                                    ep->line);
    }

    if (clcf->internal) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "nobody outside reaches \"%V\" in an internal location",
                       &ep->name);
    }

    ngx_http_nango_endpoint_warn(cf, ep);

    return NGX_CONF_OK;
}


/* What another directive of the location makes of it. */

static void
ngx_http_nango_endpoint_warn(ngx_conf_t *cf, ngx_http_nango_endpoint_t *ep)
{
    const char                *login;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (ngx_http_nango_returns(cf, 1)) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"return\" answers here before \"%V\" could",
                       &ep->name);
    }

    login = ngx_http_nango_auth_basic(cf) ? "auth_basic"
            : ngx_http_nango_auth_request(cf) ? "auth_request" : NULL;

    if (ep->strangers && login && clcf->satisfy != NGX_HTTP_SATISFY_ANY) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"%s\" refuses those who ask \"%V\", who cannot log "
                       "in; add \"%s off;\" here", login, &ep->name, login);
    }

    if (ep->manage && !ngx_http_nango_guarded(cf)) {
        ngx_http_nango_conf_error(NGX_LOG_WARN, cf, &ep->file, ep->line,
                       "\"%V manage\" lets anybody act: there is no "
                       "\"allow\", \"auth_basic\", \"auth_request\" or "
                       "\"internal\" here", &ep->name);
    }
}


ngx_nango_environment_t *
ngx_http_nango_find_environment(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *directive, ngx_str_t *file, ngx_uint_t line)
{
    ngx_uint_t                   i;
    ngx_nango_environment_t    **env;
    ngx_http_nango_main_conf_t  *nmcf;

    nmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_nango_module);
    env = nmcf->environments.elts;

    if (nmcf->environments.nelts == 0) {
        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, file, line,
                       "\"%V\" needs an environment: add a "
                       "\"nango_environment NAME { ... }\" to the http block",
                       directive);
        return NULL;
    }

    if (name->len == 0) {

        if (nmcf->environments.nelts == 1) {
            return env[0];
        }

        ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, file, line,
                       "there are %ui environments; name the one that is "
                       "meant, as in \"%V %V;\"", nmcf->environments.nelts,
                       directive, &env[0]->name);
        return NULL;
    }

    for (i = 0; i < nmcf->environments.nelts; i++) {
        if (env[i]->name.len == name->len
            && ngx_strncmp(env[i]->name.data, name->data, name->len) == 0)
        {
            return env[i];
        }
    }

    ngx_http_nango_conf_error(NGX_LOG_EMERG, cf, file, line,
                   "there is no nango_environment \"%V\"", name);
    return NULL;
}
