/* cppcheck: [arrayIndexOutOfBounds] */

int  planted(int n);


int
planted(int n)
{
    int  i, a[4];

    for (i = 0; i <= 4; i++) {
        a[i] = n;
    }

    return a[n & 3];
}
