#include "lib/hostconf.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/atomic_file.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/deadlines.h"
#include "lib/limits.h"

#define HOSTCONF_TEXT(key, flags, min) CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | (flags), struct hostconf, key, min, 255)
#define HOSTCONF_NUMBER(key) CYAML_FIELD_UINT(#key, CYAML_FLAG_OPTIONAL, struct hostconf, key)

static const cyaml_schema_field_t hostconf__fields[] = {
	HOSTCONF_TEXT(name, 0, 1),
	HOSTCONF_TEXT(address, 0, 1),
	HOSTCONF_TEXT(bridge, CYAML_FLAG_OPTIONAL, 1),
	HOSTCONF_TEXT(uplink, CYAML_FLAG_OPTIONAL, 0),
	HOSTCONF_TEXT(accel, CYAML_FLAG_OPTIONAL, 1),
	HOSTCONF_NUMBER(memory_reserve_mib),
	HOSTCONF_NUMBER(memory_mib),
	HOSTCONF_NUMBER(cpus),
	HOSTCONF_TEXT(qemu_binary, CYAML_FLAG_OPTIONAL, 1),
	HOSTCONF_TEXT(watchdog, CYAML_FLAG_OPTIONAL, 0),
	HOSTCONF_NUMBER(watchdog_timeout_s),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t hostconf__schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct hostconf, hostconf__fields),
};

enum { HOSTCONF_DEFAULT_RESERVE_MIB = 512, HOSTCONF_IFNAME_MAX = 15 };
enum { HOSTCONF_WATCHDOG_MIN_S = 5, HOSTCONF_WATCHDOG_MAX_S = DEADLINE_WATCHDOG_MS / 1000 };

/* What libcyaml says about a failure: its first sentence, and the line of its backtrace. */
struct hostconf_complaint { char text[256]; unsigned line; };

static void hostconf__on_log(cyaml_log_t level, void *data, const char *fmt, va_list args)
{
	struct hostconf_complaint *c = data;
	const char *prefix = "Load: ", *place;
	char line[256];

	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\n")] = '\0';
	place = strstr(line, "(line: ");
	if (place && !c->line)
		c->line = (unsigned)strtoul(place + strlen("(line: "), NULL, 10);
	if (!*c->text)
		strcpy(c->text, strncmp(line, prefix, strlen(prefix)) == 0 ? line + strlen(prefix) : line);
}

/* The line (from 1) of the last "key:" at the top level; 0 if there is none. */
static unsigned hostconf__line_of(const char *text, const char *key)
{
	size_t len = strlen(key);
	unsigned found = 0, number = 1;

	for (const char *line = text; line; number++) {
		const char *after = line + (*line == '"' || *line == '\'');

		if (strncmp(after, key, len) == 0 && strchr(":\"' \t", after[len]) && after[len])
			found = number;
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return found;
}

static int hostconf__bad_file(const char *path, const char *text, struct hostconf_complaint *c, struct err *err)
{
	static const char *const about_keys[] = {"Unexpected key: ", "Mapping field already seen: "};

	/* libcyaml places these at the value before: the key itself is easily found. */
	for (size_t i = 0; i < ARRAY_SIZE(about_keys); i++)
		if (strncmp(c->text, about_keys[i], strlen(about_keys[i])) == 0)
			c->line = hostconf__line_of(text, c->text + strlen(about_keys[i]));
	if (strncmp(c->text, "Missing", strlen("Missing")) == 0 || !c->line)
		return err_set(err, EINVAL, "%s: %s", path, *c->text ? c->text : "this is not YAML");
	return err_set(err, EINVAL, "%s line %u: %s", path, c->line, c->text);
}

static bool hostconf__name_ok(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > LIMIT_HOST_NAME_CHARS || !isalnum((unsigned char)name[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-._", name[i]))
			return false;
	return true;
}

static bool hostconf__address_ok(const char *address)
{
	unsigned char ip[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, address, ip) == 1 || inet_pton(AF_INET6, address, ip) == 1;
}

static bool hostconf__ifname_ok(const char *name)
{
	return strlen(name) <= HOSTCONF_IFNAME_MAX && !strpbrk(name, "/ \t\n:");
}

static int hostconf__check(const struct hostconf *conf, const char *path, const char *text, struct err *err)
{
	const char *key = NULL, *value = NULL, *wanted = NULL;
	char number[16];

	if (!hostconf__name_ok(conf->name)) {
		key = "name", value = conf->name;
		wanted = "1 to 63 letters, digits, '-', '.', '_', beginning with a letter or digit";
	} else if (!hostconf__address_ok(conf->address)) {
		key = "address", value = conf->address, wanted = "an IP address of this host";
	} else if (strcmp(conf->accel, "auto") != 0 && strcmp(conf->accel, "kvm") != 0 && strcmp(conf->accel, "tcg") != 0) {
		key = "accel", value = conf->accel, wanted = "auto, kvm or tcg";
	} else if (!*conf->bridge || !hostconf__ifname_ok(conf->bridge)) {
		key = "bridge", value = conf->bridge, wanted = "the name of a bridge, at most 15 characters";
	} else if (!hostconf__ifname_ok(conf->uplink)) {
		key = "uplink", value = conf->uplink, wanted = "the name of a network card, or nothing";
	} else if (*conf->watchdog && *conf->watchdog != '/') {
		key = "watchdog", value = conf->watchdog, wanted = "the absolute path of a watchdog device, or nothing";
	} else if (conf->watchdog_timeout_s < HOSTCONF_WATCHDOG_MIN_S || conf->watchdog_timeout_s > HOSTCONF_WATCHDOG_MAX_S) {
		snprintf(number, sizeof(number), "%u", conf->watchdog_timeout_s);
		key = "watchdog_timeout_s", value = number, wanted = "5 to 10 seconds: it is fed every second, and the other hosts rely on its end";
	} else {
		return 0;
	}
	return err_set(err, EINVAL, "%s line %u: %s: '%s' is not %s", path, hostconf__line_of(text, key), key, value, wanted);
}

static void hostconf__default(char **field, const char *value)
{
	if (!*field)
		*field = str_dup(value);
}

static void hostconf__set_defaults(struct hostconf *conf, const char *text)
{
	hostconf__default(&conf->bridge, "gbr0");
	hostconf__default(&conf->uplink, "");
	hostconf__default(&conf->accel, "auto");
	hostconf__default(&conf->qemu_binary, "qemu-system-x86_64");
	/* 0 that was written is 0; only what was not written has the default. */
	if (!hostconf__line_of(text, "memory_reserve_mib"))
		conf->memory_reserve_mib = HOSTCONF_DEFAULT_RESERVE_MIB;
	hostconf__default(&conf->watchdog, "");
	if (!hostconf__line_of(text, "watchdog_timeout_s"))
		conf->watchdog_timeout_s = HOSTCONF_WATCHDOG_MAX_S;
}

int hostconf_read(const char *path, struct hostconf *ret, struct err *err)
{
	struct hostconf_complaint complaint = {0};
	cyaml_config_t config = {
		.log_fn = hostconf__on_log, .log_ctx = &complaint, .log_level = CYAML_LOG_ERROR, .mem_fn = cyaml_mem,
	};
	struct hostconf *conf = NULL;
	struct buf text = {0};
	int rc;

	rc = atomic_file_read(path, LIMIT_HOSTCONF_BYTES, &text, err);
	if (rc < 0)
		goto out;
	if (cyaml_load_data(text.data, text.len, &config, &hostconf__schema, (cyaml_data_t **)&conf, NULL) != CYAML_OK) {
		rc = hostconf__bad_file(path, buf_str(&text), &complaint, err);
		goto out;
	}
	if (!conf) {
		rc = err_set(err, EINVAL, "%s is empty: 'name' and 'address' are needed", path);
		goto out;
	}
	hostconf__set_defaults(conf, buf_str(&text));
	rc = hostconf__check(conf, path, buf_str(&text), err);
	if (rc == 0)
		*ret = *conf;
	else
		hostconf_free(conf);
	free(conf);
out:
	buf_free(&text);
	return rc;
}

/* A double-quoted YAML scalar: every text is safe in it. */
static void hostconf__write_text(struct buf *out, const char *comment, const char *key, const char *value)
{
	buf_printf(out, "# %s\n%s: \"", comment, key);
	for (const char *c = value; *c; c++) {
		if (*c == '"' || *c == '\\')
			buf_printf(out, "\\%c", *c);
		else if ((unsigned char)*c < 0x20)
			buf_printf(out, "\\x%02x", (unsigned char)*c);
		else
			buf_append(out, c, 1);
	}
	buf_printf(out, "\"\n");
}

static void hostconf__write_number(struct buf *out, const char *comment, const char *key, uint32_t value)
{
	buf_printf(out, "# %s\n%s: %u\n", comment, key, value);
}

int hostconf_write(const char *path, const struct hostconf *conf, struct err *err)
{
	struct buf out = {0};
	int rc;

	buf_printf(&out, "# Settings of this host. Changes are read when gantry-agent and clusterd start.\n\n");
	hostconf__write_text(&out, "The name of this host in the cluster. It does not change once the host is a member.", "name",
			     conf->name);
	hostconf__write_text(&out, "Its IP address for corosync, the API and migrations.", "address", conf->address);
	hostconf__write_text(&out, "The bridge of domains that name none.", "bridge", conf->bridge ? conf->bridge : "gbr0");
	hostconf__write_text(&out, "The network card that is put into that bridge; empty: none.", "uplink",
			     conf->uplink ? conf->uplink : "");
	hostconf__write_text(&out, "auto: KVM where it works, else tcg (QEMU's own emulator). Or kvm, or tcg.", "accel",
			     conf->accel ? conf->accel : "auto");
	hostconf__write_number(&out, "MiB of memory that are kept for the host itself.", "memory_reserve_mib",
			       conf->memory_reserve_mib);
	hostconf__write_number(&out, "MiB that domains may use; 0: all but the reserve.", "memory_mib", conf->memory_mib);
	hostconf__write_number(&out, "CPUs that domains may use; 0: as many as the host has.", "cpus", conf->cpus);
	hostconf__write_text(&out, "The QEMU that runs the domains.", "qemu_binary",
			     conf->qemu_binary ? conf->qemu_binary : "qemu-system-x86_64");
	hostconf__write_text(&out, "A watchdog device (/dev/watchdog) that resets this host when it has no quorum; empty: none.", "watchdog",
			     conf->watchdog ? conf->watchdog : "");
	hostconf__write_number(&out, "Seconds, 5 to 10, from the last time it was fed to the reset.", "watchdog_timeout_s",
			       conf->watchdog_timeout_s ? conf->watchdog_timeout_s : HOSTCONF_WATCHDOG_MAX_S);
	rc = atomic_file_write(path, out.data, out.len, 0644, err);
	buf_free(&out);
	return rc;
}

void hostconf_free(struct hostconf *conf)
{
	if (!conf)
		return;
	free(conf->name);
	free(conf->address);
	free(conf->bridge);
	free(conf->uplink);
	free(conf->accel);
	free(conf->qemu_binary);
	free(conf->watchdog);
	*conf = (struct hostconf){0};
}
