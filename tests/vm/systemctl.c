/* SPDX-License-Identifier: Apache-2.0 */
/* A systemctl that does nothing for root, or never ends. Everybody else gets the real one: a user's manager needs it to
 * start. It is no script, because those are not started (fexecve(3) with a descriptor that is closed). */
#include <unistd.h>

int main(int argc, char **argv)
{
    (void)argc;
    if (getuid() != 0) {
        execv(REAL, argv);
        return 127;
    }
    while (HANGS)
        (void)pause();
    return 0;
}
