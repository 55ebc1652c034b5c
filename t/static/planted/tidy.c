/* clang-tidy: clang-analyzer-core.NullDereference */

#include <stdlib.h>


int  planted(int n);


int
planted(int n)
{
    int  *p;

    p = (n > 3) ? &n : NULL;

    return *p;
}
