#include "hypervisor/xlcfg_vif.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/xlcfg_reader.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/limits.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"

#define RATE_INTERVAL_DEFAULT_US 50000u
#define VLAN_MAX 4094

struct nic_state {
	Gantry__Nic *nic;
	const char *text, *at;
	xlcfg_note_fn note;
	void *data;
	struct err *err;
};

static int fail(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int fail(struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "vif: %s", text);
}

static void note(struct nic_state *s, const char *key, const char *why)
{
	_cleanup_free_ char *text = str_printf("'%.60s' %s", key, why);

	if (s->note != NULL)
		s->note(s->data, (size_t)(s->at - s->text), text);
}

/* Digits at *p, moved behind them; false when there are none or they overflow. */
static bool take_digits(const char **p, uint64_t *ret)
{
	uint64_t value = 0;

	if (**p < '0' || **p > '9')
		return false;
	for (; **p >= '0' && **p <= '9'; (*p)++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value))
			return false;
	*ret = value;
	return true;
}

/* [0-9]+[mu]?s? in microseconds; a bare number is seconds. */
static bool interval_us(const char *p, uint64_t *ret)
{
	uint64_t value, factor = 1000000;

	if (!take_digits(&p, &value))
		return false;
	if (*p == 'm' || *p == 'u')
		factor = *p++ == 'm' ? 1000 : 1;
	p += *p == 's';
	return *p == '\0' && !__builtin_mul_overflow(value, factor, ret) && *ret > 0 && *ret <= UINT32_MAX;
}

int xlcfg_rate_parse(const char *text, uint64_t *ret_bytes_per_interval, uint32_t *ret_interval_us, struct err *err)
{
	uint64_t rate, interval = RATE_INTERVAL_DEFAULT_US, factor = 1;
	const char *p = text;

	if (!take_digits(&p, &rate))
		return fail(err, "rate '%.60s' is not of the form 10Mb/s or 250KB/s@20ms", text);
	if (*p == 'G' || *p == 'M' || *p == 'K')
		factor = *p == 'G' ? 1000000000 : *p == 'M' ? 1000000 : 1000, p++;
	if ((*p != 'b' && *p != 'B') || strncmp(p + 1, "/s", 2) != 0 || (p[3] != '\0' && p[3] != '@'))
		return fail(err, "rate '%.60s' is not of the form 10Mb/s or 250KB/s@20ms", text);
	if (__builtin_mul_overflow(rate, factor, &rate))
		return fail(err, "rate '%.60s' is too large", text);
	if (*p == 'b')
		rate /= 8;
	if (p[3] == '@' && !interval_us(p + 4, &interval))
		return fail(err, "the interval of rate '%.60s' is not of the form 20ms, 500us or 1s, up to 4294 s", text);
	__uint128_t bytes = (__uint128_t)rate * interval / 1000000;
	if (bytes == 0)
		return fail(err, "rate '%.60s' comes to no byte at all per interval", text);
	if (bytes > UINT64_MAX)
		return fail(err, "rate '%.60s' is too large", text);
	*ret_bytes_per_interval = (uint64_t)bytes;
	*ret_interval_us = (uint32_t)interval;
	return 0;
}

static int set_mac(struct nic_state *s, const char *value)
{
	_cleanup_free_ char *mac = str_dup(value);

	for (size_t i = 0; i < 17; i++) {
		if (mac[i] >= 'A' && mac[i] <= 'F')
			mac[i] = (char)(mac[i] - 'A' + 'a');
		if (mac[i] == '\0' || (i % 3 == 2 ? mac[i] != ':' : strchr("0123456789abcdef", mac[i]) == NULL))
			return fail(s->err, "mac '%.60s' is not of the form 00:16:3e:01:02:03", value);
	}
	if (mac[17] != '\0')
		return fail(s->err, "mac '%.60s' is not of the form 00:16:3e:01:02:03", value);
	if (strchr("13579bdf", mac[1]) != NULL)
		return fail(s->err, "mac %s is a multicast address; its first octet has to be even", value);
	pb_set_string(&s->nic->mac, mac);
	return 0;
}

static int set_rate(struct nic_state *s, const char *value)
{
	uint64_t bytes;
	uint32_t interval;
	int rc = xlcfg_rate_parse(value, &bytes, &interval, s->err);

	if (rc < 0)
		return rc;
	s->nic->rate_bytes_per_interval = bytes;
	s->nic->rate_interval_us = interval;
	return 0;
}

static bool take_vlan_id(const char **p)
{
	uint64_t value;

	return take_digits(p, &value) && value >= 1 && value <= VLAN_MAX;
}

/* v[p|u], a-b[u], v+OFFxCOUNT[u], joined by '/'. */
static bool vlan_is_valid(const char *p)
{
	for (;;) {
		const char *first = p;
		uint64_t offset, count, base;

		if (!take_vlan_id(&p))
			return false;
		if (*p == '-') {
			p++;
			const char *last = p;
			if (!take_vlan_id(&p) || strtoul(last, NULL, 10) < strtoul(first, NULL, 10))
				return false;
			p += *p == 'u';
		} else if (*p == '+') {
			p++;
			base = strtoul(first, NULL, 10);
			if (!take_digits(&p, &offset) || *p++ != 'x' || !take_digits(&p, &count) || offset == 0 ||
			    count == 0 || offset > VLAN_MAX || count > VLAN_MAX ||
			    base + offset * (count - 1) > VLAN_MAX)
				return false;
			p += *p == 'u';
		} else {
			p += *p == 'p' || *p == 'u';
		}
		if (*p == '\0')
			return true;
		if (*p++ != '/')
			return false;
	}
}

static int set_checked(struct nic_state *s, const char *key, const char *value)
{
	int64_t number;

	if (strcmp(key, "mac") == 0)
		return set_mac(s, value);
	if (strcmp(key, "rate") == 0)
		return set_rate(s, value);
	if (strcmp(key, "type") == 0) {
		if (strcmp(value, "ioemu") != 0 && strcmp(value, "vif") != 0)
			return fail(s->err, "type '%.60s' is neither ioemu nor vif", value);
		s->nic->ioemu = value[0] == 'i';
		return 0;
	}
	if (strcmp(key, "mtu") == 0) {
		if (!xlcfg__is_number(value, &number) || number < 68 || number > 65535)
			return fail(s->err, "mtu '%.60s' has to be a number from 68 to 65535", value);
		s->nic->mtu = (uint32_t)number;
		return 0;
	}
	if (!vlan_is_valid(value))
		return fail(s->err, "vlan '%.60s' is not made of V[p|u], A-B[u] or V+OFFSETxCOUNT[u], 1 to %d, joined by '/'",
			    value, VLAN_MAX);
	pb_set_string(&s->nic->vlan, value);
	return 0;
}

static bool is_in(const char *word, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(words[i], word) == 0)
			return true;
	return false;
}

/* One parameter: key=value, or a word on its own. Repeats overwrite, as for xl. */
static int take_parameter(struct nic_state *s, char *word)
{
	static const char *const checked[] = {"mac", "rate", "type", "mtu", "vlan"};
	static const char *const idle[] = {"devid", "trusted", "untrusted"};
	Gantry__Nic *nic = s->nic;
	char *equals = strchr(word, '=');
	const char *value = equals ? equals + 1 : "";

	if (equals != NULL)
		*equals = '\0';
	if (is_in(word, idle, ARRAY_SIZE(idle)) || *word == '\0')
		return 0;
	if (equals != NULL && is_in(word, checked, ARRAY_SIZE(checked)))
		return set_checked(s, word, value);
	const struct {
		const char *key;
		char **field;
	} texts[] = {{"bridge", &nic->bridge}, {"model", &nic->model},	     {"ip", &nic->ip},	 {"vifname", &nic->ifname},
		     {"script", &nic->script}, {"backend", &nic->backend}, {"gatewaydev", &nic->gatewaydev}};
	for (size_t i = 0; equals != NULL && i < ARRAY_SIZE(texts); i++) {
		if (strcmp(word, texts[i].key) != 0)
			continue;
		if (strcmp(word, "backend") == 0 && strcmp(value, "0") != 0 && strcmp(value, "Domain-0") != 0)
			note(s, word, "has no effect: the host itself serves every network card");
		if (strcmp(word, "gatewaydev") == 0)
			note(s, word, "has no effect on this platform");
		if (strcmp(word, "script") == 0 && strcmp(value, "vif-bridge") != 0)
			note(s, word, "has no effect: scripts are not run, the card is put into its bridge");
		pb_set_string(texts[i].field, value);
		return 0;
	}
	note(s, word, "is unknown and is ignored");
	return 0;
}

int xlcfg_vif_parse(const char *text, Gantry__Nic **ret, size_t *ret_offset, xlcfg_note_fn note_fn, void *data,
		    struct err *err)
{
	struct nic_state s = {.nic = PB_NEW(Gantry__Nic, gantry__nic__init), .text = text, .at = text, .note = note_fn,
			      .data = data, .err = err};
	int rc = 0;

	while (rc == 0 && *s.at != '\0') {
		s.at += strspn(s.at, " \t");
		size_t len = strcspn(s.at, ",");
		_cleanup_free_ char *word = str_printf("%.*s", (int)len, s.at);
		rc = take_parameter(&s, word);
		if (rc == 0)
			s.at += len + (s.at[len] == ',');
	}
	if (rc < 0) {
		gantry__nic__free_unpacked(s.nic, NULL);
		if (ret_offset != NULL)
			*ret_offset = (size_t)(s.at - text);
		return rc;
	}
	*ret = s.nic;
	return 0;
}

struct nic_note {
	struct xlcfg_reader *reader;
	const struct xlcfg_item *item;
};

static void warn_of_note(void *data, size_t offset, const char *text)
{
	struct nic_note *n = data;
	struct xlcfg_pos pos = xlcfg__pos_inside(n->item, offset);

	xlcfg__warn(n->reader, &pos, "vif: %s", text);
}

int xlcfg__read_nics(struct xlcfg_reader *r)
{
	const struct xlcfg_setting *setting = NULL;
	int rc = xlcfg__read_list(r, "vif", &setting);

	for (size_t i = 0; rc == 0 && setting != NULL && i < setting->n_items; i++) {
		struct nic_note n = {r, &setting->items[i]};
		Gantry__Nic *nic = NULL;
		struct err err = {0};
		size_t offset = 0;

		rc = xlcfg_vif_parse(setting->items[i].text, &nic, &offset, warn_of_note, &n, &err);
		if (rc < 0) {
			struct xlcfg_pos pos = xlcfg__pos_inside(n.item, offset);
			return xlcfg__fail_at(&pos, r->err, "%s", err.text);
		}
		PB_APPEND(r->spec, nics, nic);
	}
	return rc;
}
