/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * usage: clock_loop COUNT: reads the clock so many times, natively by the vDSO.
 */
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    struct timespec now;

    for (long i = argc > 1 ? strtol(argv[1], NULL, 10) : 1000; i > 0; i--)
        clock_gettime(CLOCK_MONOTONIC, &now);
    return 0;
}
