/* The serial consoles of the domains here. The agent alone speaks to QEMU's console socket, keeps the last
 * LIMIT_CONSOLE_HISTORY_BYTES and gives all output to every watcher; one of them may write. A watcher that does not
 * read is dropped at the limit of its connection; a guest that does not read its input stops its writer, nobody else.
 */
#pragma once

#include <stddef.h>

#include "agent/daemon/agent_clients.h"
#include "agent/daemon/agent_state.h"

/* QEMU is up: connects. from_log: the history begins with the end of the console's log (after a restart of the agent).
 * Idempotent. */
void console_attach(struct domain *d, bool from_log);
/* QEMU has ended: the watchers are told why. */
void console_detach(struct domain *d, const char *why);
/* -ENOENT: no such domain here; -EBUSY: it has a writer already. Sends the history. */
int console_open(struct client *c, const Gantry__ConsoleOpen *open, struct err *err);
void console_input(struct client *c, const uint8_t *data, size_t len);
void console_client_gone(struct client *c);
