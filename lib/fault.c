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
static const char *fault_file;

static bool fault_parse(const char *text)
{
	const char *equals = strchr(text, '=');
	size_t len = equals ? (size_t)(equals - text) : 0;

	if (len == 0 || len >= sizeof(fault_name))
		return false;
	memcpy(fault_name, text, len);
	fault_name[len] = '\0';
	fault_pauses = strncmp(equals + 1, "pause", 5) == 0;
	return fault_pauses || strncmp(equals + 1, "exit", 4) == 0;
}

void fault_init(void)
{
	const char *text = getenv("GANTRY_FAULT");

	fault_file = getenv("GANTRY_FAULT_FILE");
	fault_armed = (text && fault_parse(text)) || fault_file;
}

static void fault_read_file(void)
{
	char text[160] = "";
	FILE *f = fopen(fault_file, "re");

	fault_name[0] = '\0';
	if (!f)
		return;
	if (!fgets(text, sizeof(text), f) || !fault_parse(text))
		fault_name[0] = '\0';
	fclose(f);
}

void fault__hit(const char *name)
{
	if (fault_file)
		fault_read_file();
	if (strcmp(name, fault_name) != 0)
		return;
	if (fault_file)
		unlink(fault_file);
	fprintf(stderr, "fault point %s: %s\n", name, fault_pauses ? "pause" : "exit");
	if (!fault_pauses)
		_exit(1);
	while (access(FAULT_CONTINUE, F_OK) < 0)
		usleep(FAULT_POLL_US);
	fault_armed = fault_file != NULL;
}
