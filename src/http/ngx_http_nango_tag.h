/*
 * Copyright (C) nginx-nango authors
 *
 * Reading a tag and its value from the configuration, for nango_owner and
 * nango_tag.
 */

#ifndef _NGX_HTTP_NANGO_TAG_H_INCLUDED_
#define _NGX_HTTP_NANGO_TAG_H_INCLUDED_


#include "ngx_http_nango.h"


/* Of the directive being read; owner: with the rules for nango_owner. */
char *ngx_http_nango_tag_add(ngx_conf_t *cf, ngx_array_t *tags,
    ngx_uint_t owner);

ngx_http_nango_tag_t *ngx_http_nango_tag_find(ngx_array_t *tags,
    ngx_str_t *name);


#endif /* _NGX_HTTP_NANGO_TAG_H_INCLUDED_ */
