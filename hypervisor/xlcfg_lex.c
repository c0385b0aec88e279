#include "hypervisor/xlcfg_lex.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/model.pb-c.h"

int xlcfg__fail_at(const struct xlcfg_pos *pos, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "%s:%u:%u: %s", pos->source, pos->line,
			      pos->column, text);
}

void xlcfg__lex_init(struct xlcfg_lexer *lexer, const char *source, const char *text, size_t len)
{
	*lexer = (struct xlcfg_lexer){.source = source, .at = text, .end = text + len, .line_start = text, .line = 1};
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_ident(char c)
{
	return is_lower(c) || is_digit(c) || c == '_' || c == '.';
}

static bool is_number(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'f') || c == 'x';
}

static size_t span(const struct xlcfg_lexer *lexer, bool (*member)(char))
{
	const char *p = lexer->at;

	while (p < lexer->end && member(*p))
		p++;
	return (size_t)(p - lexer->at);
}

bool xlcfg__lex_is_python(const struct xlcfg_lexer *lexer)
{
	static const char *const words[] = {"def",  "import", "from",	"if",  "else",	"elif", "for", "while",
					    "print", "return", "try",	"class", "global", "del",  "with"};
	const char *p = lexer->line_start;
	size_t n = 0;

	while (p < lexer->end && (*p == ' ' || *p == '\t'))
		p++;
	while (p + n < lexer->end && is_lower(p[n]))
		n++;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (n == strlen(words[i]) && memcmp(p, words[i], n) == 0)
			return true;
	return false;
}

/* How many bytes the UTF-8 character at p takes; 0 when it is none. Texts end up in JSON, which has no other form. */
static size_t utf8_length(const char *p, const char *end)
{
	unsigned char c = (unsigned char)*p;
	size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;

	if (n == 0 || (size_t)(end - p) < n)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (((unsigned char)p[i] & 0xc0) != 0x80)
			return 0;
	unsigned char second = n > 1 ? (unsigned char)p[1] : 0;
	if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
	    (c == 0xf4 && second > 0x8f))
		return 0;
	return n;
}

static int escape_value(char c)
{
	static const char from[] = "\"'\\abfnrtv", to[] = "\"'\\\a\b\f\n\r\t\v";
	const char *found = c ? strchr(from, c) : NULL;

	return found ? to[found - from] : -1;
}

static int lex_string(struct xlcfg_lexer *lexer, struct xlcfg_lexeme *ret, struct err *err)
{
	char quote = *lexer->at;
	struct buf out = {0};
	const char *p = lexer->at + 1;

	while (p < lexer->end && *p != quote && *p != '\n') {
		struct xlcfg_pos pos = {lexer->source, lexer->line, (uint32_t)(p - lexer->line_start) + 1};
		size_t n = utf8_length(p, lexer->end);
		int rc = 0;

		if (n == 0) {
			rc = xlcfg__fail_at(&pos, err, "byte 0x%02x is not UTF-8; save the file as UTF-8",
					    (unsigned char)*p);
		} else if (*p == '\\') {
			/* xl reads hexadecimal and octal escapes as nothing at all: refused, so that nobody is surprised. */
			int value = p + 1 < lexer->end ? escape_value(p[1]) : -1;
			char byte = (char)value;
			if (value < 0)
				rc = xlcfg__fail_at(&pos, err,
						    "unknown escape in a string; known are \\\" \\' \\\\ \\a \\b \\f \\n \\r \\t \\v");
			buf_append(&out, &byte, 1);
			n = 2;
		} else if ((unsigned char)*p < 0x20 && *p != '\t') {
			rc = xlcfg__fail_at(&pos, err, "control character 0x%02x in a string%s", (unsigned char)*p,
					    *p == '\r' ? "; a string ends on its line, and lines end with LF only" : "");
		} else {
			buf_append(&out, p, n);
		}
		if (rc < 0) {
			buf_free(&out);
			return rc;
		}
		p += n;
	}
	if (p >= lexer->end || *p != quote) {
		buf_free(&out);
		return xlcfg__fail_at(&ret->pos, err, "the string has no closing %c on this line", quote);
	}
	lexer->at = p + 1;
	ret->token = XLCFG_STRING;
	ret->text = str_dup(buf_str(&out));
	buf_free(&out);
	return 0;
}

static int fail_unknown(const struct xlcfg_lexer *lexer, const struct xlcfg_pos *pos, struct err *err)
{
	char c = *lexer->at;
	int n = 0;

	if (c >= 'A' && c <= 'Z') {
		while (lexer->at + n < lexer->end && n < 40 &&
		       (is_ident(lexer->at[n]) || (lexer->at[n] >= 'A' && lexer->at[n] <= 'Z')))
			n++;
		if ((n == 4 && !memcmp(lexer->at, "True", 4)) || (n == 5 && !memcmp(lexer->at, "False", 5)) ||
		    (n == 4 && !memcmp(lexer->at, "None", 4)))
			return xlcfg__fail_at(pos, err, "'%.*s' is Python; write 1 for true, 0 for false", n, lexer->at);
		return xlcfg__fail_at(pos, err, "'%.*s': keys are written in lower case, and texts in quotes", n,
				      lexer->at);
	}
	if (c == '-')
		return xlcfg__fail_at(pos, err, "a negative number has to be quoted: \"-1\"");
	if (c == '\r')
		return xlcfg__fail_at(pos, err, "the line ends with CR LF; save the file with LF line ends");
	if (c > 0x20 && c < 0x7f)
		return xlcfg__fail_at(pos, err, "unexpected '%c'; texts have to be quoted", c);
	return xlcfg__fail_at(pos, err, "unexpected byte 0x%02x", (unsigned char)c);
}

static void skip_blank(struct xlcfg_lexer *lexer)
{
	while (lexer->at < lexer->end && (*lexer->at == ' ' || *lexer->at == '\t'))
		lexer->at++;
	if (lexer->at < lexer->end && *lexer->at == '#')
		while (lexer->at < lexer->end && *lexer->at != '\n')
			lexer->at++;
}

static bool lex_punctuation(struct xlcfg_lexer *lexer, struct xlcfg_lexeme *ret)
{
	static const struct {
		char c;
		enum xlcfg_token token;
	} marks[] = {{'=', XLCFG_ASSIGN}, {'[', XLCFG_OPEN},	 {']', XLCFG_CLOSE},
		     {',', XLCFG_COMMA},  {';', XLCFG_NEWLINE}, {'\n', XLCFG_NEWLINE}};
	char c = *lexer->at;

	if (c == '+' && lexer->end - lexer->at > 1 && lexer->at[1] == '=') {
		lexer->at += 2;
		ret->token = XLCFG_ADD;
		return true;
	}
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
		if (marks[i].c != c)
			continue;
		ret->token = marks[i].token;
		ret->semicolon = c == ';';
		lexer->at++;
		if (c == '\n') {
			lexer->line++;
			lexer->line_start = lexer->at;
		}
		return true;
	}
	return false;
}

int xlcfg__lex_next(struct xlcfg_lexer *lexer, struct xlcfg_lexeme *ret, struct err *err)
{
	size_t n;

	skip_blank(lexer);
	*ret = (struct xlcfg_lexeme){
		.token = XLCFG_END,
		.pos = {lexer->source, lexer->line, (uint32_t)(lexer->at - lexer->line_start) + 1},
	};
	if (lexer->at >= lexer->end)
		return 0;
	if (lex_punctuation(lexer, ret))
		return 0;
	if (*lexer->at == '\'' || *lexer->at == '"')
		return lex_string(lexer, ret, err);
	if (is_lower(*lexer->at)) {
		n = span(lexer, is_ident);
		ret->token = XLCFG_IDENT;
	} else if (is_digit(*lexer->at)) {
		n = span(lexer, is_number);
		ret->token = XLCFG_NUMBER;
	} else {
		return fail_unknown(lexer, &ret->pos, err);
	}
	ret->text = str_printf("%.*s", (int)n, lexer->at);
	lexer->at += n;
	return 0;
}
