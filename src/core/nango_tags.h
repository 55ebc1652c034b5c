/*
 * Copyright (C) nginx-nango authors
 *
 * Nango's tags: names with values that a session carries, that every
 * connection made with it keeps, and that tell us its owner.  The rules are
 * those of Nango's server 0.71.4, so that what passes here passes there:
 * names ^[A-Za-z][A-Za-z0-9_\-./]*$ of up to 64 characters, lowercased by
 * Nango; values of 1 to 255 characters, counted in UTF-16 units as JavaScript
 * counts them; "end_user_email" must look like an address of at least 5
 * characters; at most 10 tags.
 */

#ifndef _NANGO_TAGS_H_INCLUDED_
#define _NANGO_TAGS_H_INCLUDED_


#include "nango_str.h"


#define NANGO_TAGS_MAX        10
#define NANGO_TAG_NAME_MAX    64
#define NANGO_TAG_VALUE_MAX   255      /* UTF-16 units */

/* A value of 255 UTF-16 units is at most this long in UTF-8. */
#define NANGO_TAG_VALUE_BYTES (NANGO_TAG_VALUE_MAX * 3)


typedef struct {
    nango_str_t           name;
    nango_str_t           value;
} nango_tag_t;


/*
 * Both return NULL if it is fine, else what is wrong with it, as the rest of a
 * sentence: "must be 1 to 255 characters long".  The value's check includes
 * that it is UTF-8 without NUL or control characters.  name selects the rules
 * that belong to one tag and is expected in lower case.
 */
const char *nango_tag_name_error(nango_str_t name);
const char *nango_tag_value_error(nango_str_t name, nango_str_t value);

/*
 * Tags as one line of text: "name=value; name=value", where all of a value
 * but letters, digits, "-", ".", "_" and "~" is percent-encoded.  Returns its
 * length; dst takes that many bytes, or is NULL.  Names are written as they
 * are, other characters than Nango's as "_".
 */
size_t nango_tags_header(const nango_tag_t *tags, size_t ntags, char *dst);

/*
 * An integration id: [A-Za-z0-9~:.@ _-], 1 to 255, as Nango's server takes it.
 * 1 or 0.
 */
int nango_integration_valid(nango_str_t id);

/*
 * A connection id: 1 to 255 characters of nearly any kind, no control
 * characters among them.  1 or 0.
 */
int nango_connection_id_valid(nango_str_t id);

/*
 * UTF-16 units of a UTF-8 string, or -1 if it is not UTF-8 (overlong forms and
 * surrogates included) or holds a control character (below U+0020, U+007F).
 */
long nango_utf16_len(nango_str_t s);


#endif /* _NANGO_TAGS_H_INCLUDED_ */
