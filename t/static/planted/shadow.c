/* gcc: -Wshadow */

int  planted(int n);


int
planted(int n)
{
    int  i, sum;

    sum = 0;

    for (i = 0; i < n; i++) {
        int  n = i;

        sum += n;
    }

    return sum;
}
