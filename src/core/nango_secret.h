/*
 * Copyright (C) nginx-nango authors
 *
 * The text of a secret: a file or a variable may hold several, one a line, as
 * editors, shells and secret stores leave them: with a byte order mark, CRLF,
 * trailing blanks, empty lines.
 */

#ifndef _NANGO_SECRET_H_INCLUDED_
#define _NANGO_SECRET_H_INCLUDED_


#include "nango_str.h"


/*
 * Takes the next secret off *text: its line without the line's end, blanks at
 * either end and a byte order mark at its start.  1 and *secret, which points
 * into the text; 0 if there is none left; -1 if the line holds a control
 * character or a byte above 0x7e, which no key of Nango's has.  Any thread.
 */
int nango_secret_next(nango_str_t *text, nango_str_t *secret);


#endif /* _NANGO_SECRET_H_INCLUDED_ */
