#include "clusterctl/yaml_emit.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <yaml.h>

#include "lib/buf.h"
#include "lib/cleanup.h"

/* Plain only what no version of YAML takes for a number, a date, a truth value or punctuation. */
static bool is_plain(const char *text)
{
	static const char *const words[] = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"};
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(words[i], text) == 0)
			return false;
	return ((*text | 32) >= 'a' && (*text | 32) <= 'z' && text[strspn(text, safe)] == '\0') ||
	       (*text == '/' && text[strspn(text, safe)] == '\0');
}

static int emit(yaml_emitter_t *emitter, yaml_event_t *event, int initialized)
{
	return initialized && yaml_emitter_emit(emitter, event) ? 0 : -EIO;
}

static int emit_scalar(yaml_emitter_t *emitter, const char *text, bool is_text)
{
	yaml_event_t event;
	yaml_scalar_style_t style = !is_text || is_plain(text) ? YAML_PLAIN_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE;

	return emit(emitter, &event, yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
								  (int)strlen(text), 1, 1, style));
}

static int emit_leaf(yaml_emitter_t *emitter, const json_t *json)
{
	if (json_is_string(json))
		return emit_scalar(emitter, json_string_value(json), true);
	_cleanup_free_ char *text = json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT);
	return text ? emit_scalar(emitter, text, false) : -ENOMEM;
}

/* Depth is bounded: the values are made from our own messages, which nest a few levels. */
static int emit_value(yaml_emitter_t *emitter, const json_t *json, unsigned depth)
{
	yaml_event_t event;
	const char *key;
	json_t *value;
	size_t i;
	int rc;

	if (depth > YAML_EMIT_DEPTH)
		return -E2BIG;
	if (json_is_object(json)) {
		rc = emit(emitter, &event, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
		json_object_foreach((json_t *)json, key, value) {
			if (rc == 0)
				rc = emit_scalar(emitter, key, true);
			if (rc == 0)
				rc = emit_value(emitter, value, depth + 1);
		}
		return rc < 0 ? rc : emit(emitter, &event, yaml_mapping_end_event_initialize(&event));
	}
	if (json_is_array(json)) {
		rc = emit(emitter, &event, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
		json_array_foreach(json, i, value) {
			if (rc == 0)
				rc = emit_value(emitter, value, depth + 1);
		}
		return rc < 0 ? rc : emit(emitter, &event, yaml_sequence_end_event_initialize(&event));
	}
	return emit_leaf(emitter, json);
}

int yaml_emit(const json_t *json, FILE *out)
{
	yaml_emitter_t emitter;
	yaml_event_t event;
	int rc;

	if (!yaml_emitter_initialize(&emitter))
		return -ENOMEM;
	yaml_emitter_set_output_file(&emitter, out);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	rc = emit(&emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	if (rc == 0)
		rc = emit(&emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	if (rc == 0)
		rc = emit_value(&emitter, json, 0);
	if (rc == 0)
		rc = emit(&emitter, &event, yaml_document_end_event_initialize(&event, 1));
	if (rc == 0)
		rc = emit(&emitter, &event, yaml_stream_end_event_initialize(&event));
	yaml_emitter_delete(&emitter);
	return rc;
}
