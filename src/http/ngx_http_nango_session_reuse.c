/*
 * Copyright (C) nginx-nango authors
 *
 * nango_session_reuse TIME|off;
 *
 * How long the same caller gets the same token for exactly the same session.
 * Tokens are multi-use and valid for 30 minutes at Nango, so the time is kept
 * well below that.
 */

#include "ngx_http_nango.h"
#include "ngx_nango_shared.h"


char *
ngx_http_nango_session_reuse(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_nango_loc_conf_t *nlcf = conf;

    time_t      reuse;
    ngx_str_t  *value;

    if (nlcf->session_reuse != NGX_CONF_UNSET) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        nlcf->session_reuse = 0;
        return NGX_CONF_OK;
    }

    reuse = ngx_parse_time(&value[1], 1);

    if (reuse == (time_t) NGX_ERROR || reuse < 1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\"; write it as \"30s\", or "
                           "\"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (reuse > NGX_NANGO_SESSION_LONGEST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "a token is valid for 30 minutes only; reuse it "
                           "for 20m at most, so that there is time to use it");
        return NGX_CONF_ERROR;
    }

    nlcf->session_reuse = reuse;

    return NGX_CONF_OK;
}
