/*
 * Copyright (C) nginx-nango authors
 *
 * Text that grows while it is written, and what JSON makes of strings.  Who
 * writes looks once, at the end, whether there was memory for all of it.
 *
 * The functions here may be called on any thread.
 */

#ifndef _NANGO_TEXT_H_INCLUDED_
#define _NANGO_TEXT_H_INCLUDED_


#include "nango_str.h"


/* All zero: empty.  data is the writer's until nango_text_free(). */
typedef struct {
    unsigned char        *data;
    size_t                len;
    size_t                size;
    int                   failed;       /* no memory: nothing is added */
} nango_text_t;


void nango_text_free(nango_text_t *t);

void nango_text_add(nango_text_t *t, nango_str_t s);
void nango_text_string(nango_text_t *t, const char *s);
void nango_text_number(nango_text_t *t, uint64_t n);
void nango_text_hex(nango_text_t *t, const unsigned char *data, size_t len);

/* As in JavaScript, in quotes; null for 0.  ms since 1970. */
void nango_text_time(nango_text_t *t, uint64_t ms);

/* Both in quotes.  What is no UTF-8 in a string becomes U+FFFD, each byte. */
void nango_text_json(nango_text_t *t, nango_str_t s);
void nango_text_base64(nango_text_t *t, nango_str_t s);


#endif /* _NANGO_TEXT_H_INCLUDED_ */
