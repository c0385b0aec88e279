#include "lib/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/paths.h"

#define FAULT_CONTINUE PATH_RUN "/fault-continue"
#define FAULT_POLL_US 20000

bool fault_armed;
static char fault_name[128];
static bool fault_pauses;

void fault_init(void)
{
	const char *text = getenv("GANTRY_FAULT"), *equals = text ? strchr(text, '=') : NULL;
	size_t len = equals ? (size_t)(equals - text) : 0;

	if (len == 0 || len >= sizeof(fault_name))
		return;
	memcpy(fault_name, text, len);
	fault_name[len] = '\0';
	fault_pauses = strcmp(equals + 1, "pause") == 0;
	fault_armed = fault_pauses || strcmp(equals + 1, "exit") == 0;
}

void fault__hit(const char *name)
{
	if (strcmp(name, fault_name) != 0)
		return;
	fprintf(stderr, "fault point %s: %s\n", name, fault_pauses ? "pause" : "exit");
	if (!fault_pauses)
		_exit(1);
	while (access(FAULT_CONTINUE, F_OK) < 0)
		usleep(FAULT_POLL_US);
	fault_armed = false;
}
