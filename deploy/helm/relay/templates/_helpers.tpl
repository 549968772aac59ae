{{/* The first part of all names. It leaves room for the 17 characters that Kubernetes adds to the name of a pod. */}}
{{- define "relay.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := ternary .Release.Name (printf "%s-relay" .Release.Name) (contains "relay" .Release.Name) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What tells the pods of a component from all others. This and the next take (dict "root" $ "component" NAME). */}}
{{- define "relay.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "relay.labels" -}}
{{ include "relay.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "relay.metadata" -}}
name: {{ include "relay.fullname" .root }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "relay.labels" . | nindent 2 }}
{{- end -}}

{{- define "relay.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What every container may do, which is little. */}}
{{- define "relay.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every pod runs as. Takes the number of its user. */}}
{{- define "relay.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Helm reads every number in a file as a float, and would write 8388608 as 8.388608e+06. */}}
{{- define "relay.plain" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* One setting, or its default. Takes (list ROOT NAME DEFAULT). */}}
{{- define "relay.setting" -}}
{{- $settings := (index . 0).Values.settings -}}
{{- include "relay.plain" (hasKey $settings (index . 1) | ternary (get $settings (index . 1)) (index . 2)) -}}
{{- end -}}

{{/* The settings whose values are secret. */}}
{{- define "relay.secretSettings" -}}
["RELAY_REDIS_URL", "RELAY_TOKEN_SECRET", "RELAY_ADMIN_SECRET"]
{{- end -}}

{{/* What the chart's own Secret holds, as a YAML map. The keys are the names of the settings. */}}
{{- define "relay.ownSecrets" -}}
{{- range $name := include "relay.secretSettings" . | fromJsonArray }}
{{- with get $.Values.settings $name }}
{{ $name }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.namedSecrets }}
RELAY_TOKEN_SECRETS_FILE: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Where each secret setting is, as a YAML map of settings and (name: of the Secret, key:). */}}
{{- define "relay.secretSources" -}}
{{- range $name, $_ := include "relay.ownSecrets" . | fromYaml }}
{{ $name }}: {name: {{ include "relay.fullname" $ }}, key: {{ $name }}}
{{- end }}
{{- range $name, $source := .Values.settingsFromSecrets }}
{{ $name }}: {{ $source | toJson }}
{{- end }}
{{- end -}}

{{/* The folder in which a pod sees secret settings: each is a file with the name of the setting. */}}
{{- define "relay.secretFolder" -}}
/run/secrets/relay
{{- end -}}

{{/* A volume with these settings. Takes such a map as relay.secretSources. */}}
{{- define "relay.secretVolume" -}}
name: secrets
projected:
  defaultMode: 0440
  sources:
    {{- range $setting, $source := . }}
    - secret: {name: {{ $source.name }}, items: [{key: {{ $source.key | quote }}, path: {{ $setting }}}]}
    {{- end }}
{{- end -}}

{{/* The environment of a node, as a YAML map of names and texts. */}}
{{- define "relay.environment" -}}
{{- if .Values.redis.trial }}
RELAY_REDIS_URL: redis://{{ include "relay.fullname" . }}-redis:6379/0
{{- end }}
{{- with .Values.tls.secretName }}
RELAY_SSL_CERTFILE: /run/secrets/tls/tls.crt
RELAY_SSL_KEYFILE: /run/secrets/tls/tls.key
{{- end }}
{{- $secret := include "relay.secretSettings" . | fromJsonArray }}
{{- range $name, $value := .Values.settings }}
{{- if not (has $name $secret) }}
{{ $name }}: {{ include "relay.plain" $value | quote }}
{{- end }}
{{- end }}
{{- range $name, $_ := include "relay.secretSources" . | fromYaml }}
{{ trimSuffix "_FILE" $name }}_FILE: {{ include "relay.secretFolder" $ }}/{{ $name }}
{{- end }}
{{- end -}}

{{/* Not empty if a node shares its store with no other. */}}
{{- define "relay.alone" -}}
{{- $url := .Values.settings.RELAY_REDIS_URL | default "memory://" -}}
{{- $elsewhere := or .Values.redis.trial .Values.settingsFromSecrets.RELAY_REDIS_URL .Values.settings.RELAY_REDIS_URL_FILE -}}
{{- if and (eq $url "memory://") (not $elsewhere) -}}alone{{- end -}}
{{- end -}}

{{/* `https` if the nodes serve it themselves, otherwise `http`. */}}
{{- define "relay.scheme" -}}
{{- include "relay.environment" . | fromYaml | dig "RELAY_SSL_CERTFILE" "" | empty | ternary "http" "https" -}}
{{- end -}}

{{/* Seconds from SIGTERM until a node has ended for certain: streams are cut off after RELAY_DRAIN_TIMEOUT, or after the
     two phases before that, if they are longer. Then clients are told within 10 s, and 10 s are to spare. */}}
{{- define "relay.gracePeriod" -}}
{{- $phases := addf (include "relay.setting" (list . "RELAY_DRAIN_DELAY" 5) | float64)
                    (include "relay.setting" (list . "RELAY_DRAIN_WAIT" 10) | float64) -}}
{{- $timeout := include "relay.setting" (list . "RELAY_DRAIN_TIMEOUT" 120) | float64 -}}
{{- maxf $phases $timeout | ceil | int64 | add 20 -}}
{{- end -}}

{{/* Seconds of silence that a proxy must bear: longer than a node's own limits, so that the node ends a wait and says why.
     A download is silent while its uploader is away. */}}
{{- define "relay.silence" -}}
{{- $longest := 300.0 -}}
{{- range $name := list "RELAY_UPLOAD_WAIT" "RELAY_DOWNLOAD_WAIT_MAX" "RELAY_STALL" "RELAY_RESUME_WAIT" -}}
{{- $longest = maxf $longest (include "relay.setting" (list $ $name 300) | float64) -}}
{{- end -}}
{{- $longest | ceil | int64 | add 30 -}}
{{- end -}}
