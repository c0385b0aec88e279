#include "hypervisor/xlcfg_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/limits.h"

static void setting_clear(struct xlcfg_setting *setting)
{
	for (size_t i = 0; i < setting->n_items; i++)
		free(setting->items[i].text);
	free(setting->items);
	free(setting->key);
	*setting = (struct xlcfg_setting){0};
}

void xlcfg__file_free(struct xlcfg_file *file)
{
	for (size_t i = 0; i < file->n_settings; i++)
		setting_clear(&file->settings[i]);
	for (size_t i = 0; i < file->n_sources; i++)
		free(file->sources[i]);
	free(file->settings);
	free(file->sources);
	*file = (struct xlcfg_file){0};
}

const struct xlcfg_setting *xlcfg__file_find(const struct xlcfg_file *file, const char *key)
{
	for (size_t i = 0; i < file->n_settings; i++)
		if (strcmp(file->settings[i].key, key) == 0)
			return &file->settings[i];
	return NULL;
}

static int item_append(struct xlcfg_setting *setting, const struct xlcfg_pos *pos, char *text, struct err *err)
{
	if (setting->n_items >= LIMIT_XLCFG_ITEMS) {
		free(text);
		return xlcfg__fail_at(pos, err, "'%.60s' has more than %u items", setting->key, LIMIT_XLCFG_ITEMS);
	}
	if (text != NULL && strlen(text) > LIMIT_XLCFG_VALUE_BYTES) {
		free(text);
		return xlcfg__fail_at(pos, err, "a value of '%.60s' is longer than %u bytes", setting->key,
				      LIMIT_XLCFG_VALUE_BYTES);
	}
	setting->items = mem_realloc(setting->items, (setting->n_items + 1) * sizeof(*setting->items));
	setting->items[setting->n_items++] = (struct xlcfg_item){.pos = *pos, .text = text};
	return 0;
}

static const char *token_word(const struct xlcfg_lexeme *lexeme)
{
	switch (lexeme->token) {
	case XLCFG_END:
		return "the end of the file";
	case XLCFG_NEWLINE:
		return lexeme->semicolon ? "';'" : "the end of the line";
	case XLCFG_ASSIGN:
		return "'='";
	case XLCFG_ADD:
		return "'+='";
	case XLCFG_OPEN:
		return "'['";
	case XLCFG_CLOSE:
		return "']'";
	case XLCFG_COMMA:
		return "','";
	default:
		return lexeme->text;
	}
}

static int fail_value(const struct xlcfg_lexeme *lexeme, struct err *err)
{
	if (lexeme->token == XLCFG_IDENT)
		return xlcfg__fail_at(&lexeme->pos, err,
				      "'%.60s' is no value: texts have to be quoted, true and false are 1 and 0",
				      lexeme->text);
	return xlcfg__fail_at(&lexeme->pos, err, "a value is missing before %s", token_word(lexeme));
}

/* What may stand next inside a list. */
enum list_want { WANT_VALUE_OR_CLOSE, WANT_COMMA_OR_CLOSE };

/* One word inside a list. Lists inside the list are only counted: no key takes one, but the grammar has them. */
static int list_word(struct xlcfg_setting *setting, struct xlcfg_lexeme *word, unsigned *depth, enum list_want *want,
		     struct err *err)
{
	enum list_want wanted = *want;

	if (word->token == XLCFG_NEWLINE && !word->semicolon)
		return 0;
	if (word->token == XLCFG_CLOSE) {
		(*depth)--;
		*want = WANT_COMMA_OR_CLOSE;
		return 0;
	}
	if (wanted == WANT_COMMA_OR_CLOSE) {
		if (word->token != XLCFG_COMMA)
			return xlcfg__fail_at(&word->pos, err, "',' or ']' is missing in the list before %.60s",
					      token_word(word));
		*want = WANT_VALUE_OR_CLOSE;
		return 0;
	}
	if (word->token == XLCFG_OPEN) {
		if (++*depth > LIMIT_XLCFG_DEPTH)
			return xlcfg__fail_at(&word->pos, err, "lists are nested more than %u deep", LIMIT_XLCFG_DEPTH);
		return *depth == 2 ? item_append(setting, &word->pos, NULL, err) : 0;
	}
	if (word->token == XLCFG_IDENT)
		return xlcfg__fail_at(&word->pos, err, "'%.60s' stands in the list that begins at line %u: is its ']' missing?",
				      word->text, setting->pos.line);
	if (word->token != XLCFG_STRING && word->token != XLCFG_NUMBER)
		return fail_value(word, err);
	*want = WANT_COMMA_OR_CLOSE;
	if (*depth > 1)
		return 0;
	char *text = word->text;
	word->text = NULL;
	return item_append(setting, &word->pos, text, err);
}

static int read_list(struct xlcfg_lexer *lexer, struct xlcfg_setting *setting, const struct xlcfg_pos *open,
		     struct err *err)
{
	enum list_want want = WANT_VALUE_OR_CLOSE;
	unsigned depth = 1;

	setting->is_list = true;
	while (depth > 0) {
		struct xlcfg_lexeme word;
		int rc = xlcfg__lex_next(lexer, &word, err);
		if (rc == 0 && word.token == XLCFG_END)
			rc = xlcfg__fail_at(open, err, "the list has no closing ']'");
		if (rc == 0)
			rc = list_word(setting, &word, &depth, &want, err);
		free(word.text);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Puts a new setting in the place of an older one of its key, or joins them for `+=`. Takes *fresh over. */
static int file_store(struct xlcfg_file *file, struct xlcfg_setting *fresh, bool add, struct err *err)
{
	struct xlcfg_setting *old = (struct xlcfg_setting *)xlcfg__file_find(file, fresh->key);
	int rc = 0;

	if (old == NULL) {
		if (file->n_settings >= LIMIT_XLCFG_SETTINGS)
			return xlcfg__fail_at(&fresh->pos, err, "more than %u different keys", LIMIT_XLCFG_SETTINGS);
		file->settings = mem_realloc(file->settings, (file->n_settings + 1) * sizeof(*file->settings));
		file->settings[file->n_settings++] = *fresh;
		*fresh = (struct xlcfg_setting){0};
		return 0;
	}
	if (!add) {
		setting_clear(old);
		*old = *fresh;
		*fresh = (struct xlcfg_setting){0};
		return 0;
	}
	if (old->is_list != fresh->is_list)
		return xlcfg__fail_at(&fresh->pos, err, "'%.60s' is %s at line %u and can not be joined with %s",
				      fresh->key, old->is_list ? "a list" : "a single value", old->pos.line,
				      fresh->is_list ? "a list" : "a single value");
	if (!fresh->is_list) {
		char *joined = str_printf("%s%s", old->items[0].text, fresh->items[0].text);
		free(old->items[0].text);
		old->items[0].text = joined;
		if (strlen(joined) > LIMIT_XLCFG_VALUE_BYTES)
			return xlcfg__fail_at(&fresh->pos, err, "the value of '%.60s' becomes longer than %u bytes",
					      fresh->key, LIMIT_XLCFG_VALUE_BYTES);
	}
	for (size_t i = 0; fresh->is_list && i < fresh->n_items && rc == 0; i++) {
		char *text = fresh->items[i].text;
		fresh->items[i].text = NULL;
		rc = item_append(old, &fresh->items[i].pos, text, err);
	}
	return rc;
}

static int read_value(struct xlcfg_lexer *lexer, struct xlcfg_setting *setting, struct err *err)
{
	struct xlcfg_lexeme word;
	int rc = xlcfg__lex_next(lexer, &word, err);

	if (rc < 0)
		return rc;
	if (word.token == XLCFG_OPEN)
		return read_list(lexer, setting, &word.pos, err);
	if (word.token == XLCFG_STRING || word.token == XLCFG_NUMBER)
		return item_append(setting, &word.pos, word.text, err);
	rc = fail_value(&word, err);
	free(word.text);
	return rc;
}

/* The rest of `KEY = VALUE` behind its key; takes key->text over. */
static int read_assignment(struct xlcfg_file *file, struct xlcfg_lexer *lexer, struct xlcfg_lexeme *key, struct err *err)
{
	struct xlcfg_setting fresh = {.key = key->text, .pos = key->pos};
	struct xlcfg_lexeme word;
	bool add = false;
	int rc;

	key->text = NULL;
	rc = xlcfg__lex_next(lexer, &word, err);
	if (rc == 0) {
		add = word.token == XLCFG_ADD;
		if (word.token != XLCFG_ASSIGN && !add)
			rc = xlcfg__fail_at(&word.pos, err, "'=' is missing after '%.60s', before %.60s", fresh.key,
					    token_word(&word));
		free(word.text);
	}
	if (rc == 0)
		rc = read_value(lexer, &fresh, err);
	if (rc == 0)
		rc = file_store(file, &fresh, add, err);
	setting_clear(&fresh);
	return rc;
}

/* One line: nothing, or an assignment and its end. *ret_end: the text is at its end. */
static int read_line(struct xlcfg_file *file, struct xlcfg_lexer *lexer, bool *ret_end, struct err *err)
{
	struct xlcfg_lexeme word;
	int rc = xlcfg__lex_next(lexer, &word, err);

	if (rc < 0)
		return rc;
	if (word.token == XLCFG_IDENT) {
		rc = read_assignment(file, lexer, &word, err);
		if (rc == 0)
			rc = xlcfg__lex_next(lexer, &word, err);
		if (rc < 0)
			return rc;
		if (word.token != XLCFG_NEWLINE && word.token != XLCFG_END)
			rc = xlcfg__fail_at(&word.pos, err, "the line should end before %.60s", token_word(&word));
	} else if (word.token != XLCFG_NEWLINE && word.token != XLCFG_END) {
		rc = xlcfg__fail_at(&word.pos, err, "a line begins with a key, not with %.60s", token_word(&word));
	}
	*ret_end = word.token == XLCFG_END;
	free(word.text);
	return rc;
}

int xlcfg__file_add(struct xlcfg_file *file, const char *source, const char *text, size_t len, struct err *err)
{
	struct xlcfg_lexer lexer;
	bool end = false;

	file->sources = mem_realloc(file->sources, (file->n_sources + 1) * sizeof(*file->sources));
	file->sources[file->n_sources++] = str_dup(source);
	xlcfg__lex_init(&lexer, file->sources[file->n_sources - 1], text, len);
	if (len > LIMIT_XLCFG_BYTES)
		return xlcfg__fail_at(&(struct xlcfg_pos){source, 1, 1}, err,
				      "%zu bytes are more than a domain's file may have (%u)", len, LIMIT_XLCFG_BYTES);
	while (!end) {
		int rc = read_line(file, &lexer, &end, err);
		if (rc < 0 && xlcfg__lex_is_python(&lexer)) {
			size_t used = err ? strlen(err->text) : 0;
			if (err)
				snprintf(err->text + used, sizeof(err->text) - used,
					 "; this is an xm file in Python, which is never executed: write it in xl's syntax");
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}
