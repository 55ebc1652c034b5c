/* gcc: -Wanalyzer-double-free */

#include <stdlib.h>


void  planted(int n);


void
planted(int n)
{
    void  *p;

    p = malloc(8);

    free(p);

    if (n) {
        free(p);
    }
}
