/* The words of xl.cfg: identifiers, numbers, strings and punctuation, each with its place. Internal to
 * the xl.cfg reader. Pure. A lexeme's text belongs to the caller; a place borrows the source's name. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

struct xlcfg_pos {
	const char *source; /* the file's name, or what stands for it */
	uint32_t line, column;
};

enum xlcfg_token {
	XLCFG_END,
	XLCFG_NEWLINE, /* end of line or ';' */
	XLCFG_IDENT,
	XLCFG_STRING,
	XLCFG_NUMBER,
	XLCFG_ASSIGN,
	XLCFG_ADD, /* += */
	XLCFG_OPEN,
	XLCFG_CLOSE,
	XLCFG_COMMA,
};

struct xlcfg_lexer {
	const char *source, *at, *end, *line_start;
	uint32_t line;
};

struct xlcfg_lexeme {
	enum xlcfg_token token;
	struct xlcfg_pos pos;
	char *text; /* IDENT, STRING (escapes resolved), NUMBER; else NULL */
	bool semicolon; /* NEWLINE: it was a ';', which does not count inside a list */
};

void xlcfg__lex_init(struct xlcfg_lexer *lexer, const char *source, const char *text, size_t len);
/* The next word. -EINVAL with source:line:column for what is none. */
int xlcfg__lex_next(struct xlcfg_lexer *lexer, struct xlcfg_lexeme *ret, struct err *err);
/* Is the line of this place written in Python, as the older tool's files were? */
bool xlcfg__lex_is_python(const struct xlcfg_lexer *lexer);
/* Sets err to "source:line:column: text" with status 65; returns -EINVAL. */
int xlcfg__fail_at(const struct xlcfg_pos *pos, struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
