#include "hypervisor/xlcfg_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/limits.h"

struct xlcfg_pos xlcfg__pos_inside(const struct xlcfg_item *item, size_t offset)
{
	struct xlcfg_pos pos = item->pos;

	pos.column += (uint32_t)offset + 1;
	return pos;
}

static void warnings_append(struct xlcfg_warnings *w, char *line)
{
	w->lines = mem_realloc(w->lines, (w->n + 1) * sizeof(*w->lines));
	w->lines[w->n++] = line;
}

void xlcfg__warn(struct xlcfg_reader *r, const struct xlcfg_pos *pos, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	if (r->warnings == NULL)
		return;
	if (r->warnings->n >= LIMIT_XLCFG_WARNINGS) {
		r->warnings_dropped++;
		return;
	}
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	warnings_append(r->warnings, str_printf("%s:%u:%u: %s", pos->source, pos->line, pos->column, text));
}

const struct xlcfg_setting *xlcfg__find(const struct xlcfg_reader *r, const char *key)
{
	return xlcfg__file_find(&r->file, key);
}

static int read_single(struct xlcfg_reader *r, const char *key, const struct xlcfg_item **ret)
{
	const struct xlcfg_setting *setting = xlcfg__find(r, key);

	if (setting == NULL)
		return 0;
	if (setting->is_list)
		return xlcfg__fail_at(&setting->pos, r->err, "'%s' takes one value, not a list", key);
	*ret = &setting->items[0];
	return 0;
}

int xlcfg__read_string(struct xlcfg_reader *r, const char *key, const char **ret)
{
	const struct xlcfg_item *item = NULL;
	int rc = read_single(r, key, &item);

	if (rc == 0 && item != NULL)
		*ret = item->text;
	return rc;
}

bool xlcfg__is_number(const char *text, int64_t *ret)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 0);
	if (errno != 0 || end == text || *end != '\0')
		return false;
	*ret = value;
	return true;
}

int xlcfg__read_number(struct xlcfg_reader *r, const char *key, int64_t min, int64_t max, int64_t *ret)
{
	const struct xlcfg_item *item = NULL;
	int64_t value;
	int rc = read_single(r, key, &item);

	if (rc < 0 || item == NULL)
		return rc;
	if (!xlcfg__is_number(item->text, &value)) {
		xlcfg__warn(r, &item->pos, "'%s': '%.60s' is not a number and is ignored", key, item->text);
		return 0;
	}
	if (value < min || value > max)
		return xlcfg__fail_at(&item->pos, r->err, "'%s' is %.60s, but has to be between %" PRId64 " and %" PRId64,
				      key, item->text, min, max);
	*ret = value;
	return 0;
}

int xlcfg__read_bool(struct xlcfg_reader *r, const char *key, bool *ret)
{
	const struct xlcfg_item *item = NULL;
	int64_t value;
	int rc = read_single(r, key, &item);

	if (rc < 0 || item == NULL)
		return rc;
	if (!xlcfg__is_number(item->text, &value))
		return xlcfg__fail_at(&item->pos, r->err, "'%s' is '%.60s', but has to be 0 or 1", key, item->text);
	*ret = value != 0;
	return 0;
}

int xlcfg__read_list(struct xlcfg_reader *r, const char *key, const struct xlcfg_setting **ret)
{
	const struct xlcfg_setting *setting = xlcfg__find(r, key);

	if (setting == NULL)
		return 0;
	if (!setting->is_list)
		return xlcfg__fail_at(&setting->pos, r->err, "'%s' has to be a list: %s = [ '...' ]", key, key);
	for (size_t i = 0; i < setting->n_items; i++)
		if (setting->items[i].text == NULL)
			return xlcfg__fail_at(&setting->items[i].pos, r->err,
					      "item %zu of '%s' is a list; it has to be a text in quotes", i + 1, key);
	*ret = setting;
	return 0;
}

int xlcfg__read_word(struct xlcfg_reader *r, const char *key, const char *const *words, size_t n_words, int *ret)
{
	const struct xlcfg_item *item = NULL;
	struct buf all = {0};
	int rc = read_single(r, key, &item);

	if (rc < 0 || item == NULL)
		return rc;
	for (size_t i = 0; i < n_words; i++) {
		if (strcmp(words[i], item->text) == 0) {
			buf_free(&all);
			*ret = (int)i;
			return 0;
		}
		buf_printf(&all, "%s%s", i == 0 ? "" : i + 1 == n_words ? " or " : ", ", words[i]);
	}
	rc = xlcfg__fail_at(&item->pos, r->err, "'%s' is '%.60s', but has to be %s", key, item->text, buf_str(&all));
	buf_free(&all);
	return rc;
}

void xlcfg_warnings_free(struct xlcfg_warnings *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->lines[i]);
	free(w->lines);
	*w = (struct xlcfg_warnings){0};
}
