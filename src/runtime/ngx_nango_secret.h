/*
 * Copyright (C) nginx-nango authors
 *
 * Secrets of the configuration: file:PATH, env:NAME or data:VALUE, read by the
 * master while it is root, like certificate keys.  Errors say which secret and
 * why, and never what it holds.
 */

#ifndef _NGX_NANGO_SECRET_H_INCLUDED_
#define _NGX_NANGO_SECRET_H_INCLUDED_


#include "ngx_nango.h"


/*
 * Appends the keys of a secret, one a line, to keys (of ngx_str_t, in
 * cf->pool).  NGX_CONF_OK, or NGX_CONF_ERROR after logging.
 */
char *ngx_nango_secret_read(ngx_conf_t *cf, ngx_str_t *secret,
    ngx_array_t *keys);


#endif /* _NGX_NANGO_SECRET_H_INCLUDED_ */
