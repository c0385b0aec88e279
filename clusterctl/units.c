#include "clusterctl/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

static int fail(struct err *err, const char *what, const char *text, const char *want)
{
	return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_USAGE, "%s '%.60s' has to be %s", what, text, want);
}

/* Digits at *p, moved behind them. */
static bool take_number(const char **p, uint64_t *ret)
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

int units_parse_bytes(const char *what, const char *text, int rate, uint64_t *ret, struct err *err)
{
	static const char letters[] = "KMGTP";
	const char *want = rate ? "a rate such as 100M or 1GiB/s" : "a size such as 512M, 10G or 1TiB";
	const char *p = text;
	uint64_t value;
	unsigned shift = 0;

	if (!take_number(&p, &value))
		return fail(err, what, text, want);
	if (*p != '\0' && strchr(letters, *p)) {
		shift = 10 * (unsigned)(strchr(letters, *p) - letters + 1);
		p++;
		if (strncmp(p, "iB", 2) == 0)
			p += 2;
	}
	if (*p == 'B' && p[-1] != 'B')
		p++;
	if (rate && strcmp(p, "/s") == 0)
		p += 2;
	if (*p != '\0')
		return fail(err, what, text, want);
	if (shift && value > UINT64_MAX >> shift)
		return fail(err, what, text, "smaller");
	*ret = value << shift;
	return 0;
}

int units_parse_number(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	const char *p = text;
	uint64_t value;

	if (!take_number(&p, &value) || *p != '\0' || value < min || value > max) {
		_cleanup_free_ char *want = str_printf("a number from %" PRIu64 " to %" PRIu64, min, max);
		return fail(err, what, text, want);
	}
	*ret = value;
	return 0;
}

int units_parse_seconds(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret, struct err *err)
{
	static const struct {
		char letter;
		uint64_t seconds;
	} units[] = {{'\0', 1}, {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	const char *p = text;
	uint64_t value;
	bool ok = take_number(&p, &value);
	size_t i = 0;

	while (ok && i < ARRAY_SIZE(units) && units[i].letter != *p)
		i++;
	ok = ok && i < ARRAY_SIZE(units) && (*p == '\0' || p[1] == '\0') && !__builtin_mul_overflow(value, units[i].seconds, &value);
	if (!ok || value < min || value > max) {
		_cleanup_free_ char *least = units_format_ms(min * 1000), *most = units_format_ms(max * 1000);
		_cleanup_free_ char *want = str_printf("a time such as 90s, 30m or 2h, from %s to %s", least, most);
		return fail(err, what, text, want);
	}
	*ret = value;
	return 0;
}

char *units_format_bytes(uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t i = 0;

	for (; value >= 1024 && i + 1 < ARRAY_SIZE(units); i++)
		value /= 1024;
	if (i == 0 || value >= 100 || value == (double)(uint64_t)value)
		return str_printf("%.0f %s", value, units[i]);
	return str_printf("%.1f %s", value, units[i]);
}

char *units_format_ms(uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		return str_printf("%" PRIu64 " ms", ms);
	if (s < 60)
		return str_printf("%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
	if (s < 3600)
		return str_printf("%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
	if (s < 86400)
		return str_printf("%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
	return str_printf("%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
}
