{{/* Refuse values that contradict each other, each with one line that says what to do. What values.schema.json or a node
     itself can refuse is not here. */}}
{{- define "relay.check" -}}
{{- $settings := .Values.settings -}}
{{- $given := .Values.settingsFromSecrets -}}
{{- $sources := include "relay.secretSources" . | fromYaml -}}
{{- range $name, $_ := $given -}}
{{- if hasKey $settings $name -}}
{{- fail (printf "settings.%s and settingsFromSecrets.%s: keep one of them" $name $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := include "relay.secretSettings" . | fromJsonArray -}}
{{- $file := printf "%s_FILE" $name -}}
{{- if and (hasKey $sources $name) (get $settings $file) -}}
{{- fail (printf "settings.%s is set, and %s too: keep one of them" $file $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.namedSecrets (or $settings.RELAY_TOKEN_SECRETS_FILE $given.RELAY_TOKEN_SECRETS_FILE) -}}
{{- fail "namedSecrets and RELAY_TOKEN_SECRETS_FILE: keep one of them" -}}
{{- end -}}
{{- $redis := or (hasKey $sources "RELAY_REDIS_URL") $settings.RELAY_REDIS_URL_FILE -}}
{{- if and .Values.redis.trial $redis -}}
{{- fail "RELAY_REDIS_URL is set, and redis.trial=true: set redis.trial=false to use your own Redis" -}}
{{- end -}}
{{- $alone := include "relay.alone" . -}}
{{- if and $alone .Values.autoscaling.enabled -}}
{{- fail "autoscaling.enabled=true needs a Redis: set RELAY_REDIS_URL, or redis.trial=true" -}}
{{- end -}}
{{- if and $alone (gt (int .Values.replicas) 1) -}}
{{- fail (printf "replicas=%d needs a Redis: set RELAY_REDIS_URL, or redis.trial=true, or replicas=1" (int .Values.replicas)) -}}
{{- end -}}
{{- $admin := or (hasKey $sources "RELAY_ADMIN_SECRET") $settings.RELAY_ADMIN_SECRET_FILE -}}
{{- if and (eq ($settings.RELAY_STATUS | default "public") "private") (not $admin) -}}
{{- fail "settings.RELAY_STATUS=private needs a RELAY_ADMIN_SECRET, or nobody can see it" -}}
{{- end -}}
{{- if and .Values.tls.secretName (or $settings.RELAY_SSL_CERTFILE $settings.RELAY_SSL_KEYFILE) -}}
{{- fail "tls.secretName and settings.RELAY_SSL_CERTFILE: keep one of them" -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail "autoscaling.minReplicas must be at most autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .enabled (not .cpu) (not .metrics) -}}
{{- fail "autoscaling.enabled=true needs autoscaling.metrics or autoscaling.cpu, or it cannot know when to scale" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.cpu (not (dig "requests" "cpu" "" .Values.resources)) -}}
{{- fail "autoscaling.cpu is a percentage of resources.requests.cpu: set that, too" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled=true needs httpRoute.parentRefs: the Gateways that it belongs to" -}}
{{- end -}}
{{- if and (or .Values.ingress.enabled .Values.httpRoute.enabled) (eq (include "relay.scheme" .) "https") -}}
{{- fail "the ingress and the route speak HTTP to the nodes: remove tls.secretName and RELAY_SSL_CERTFILE, or expose the nodes by service.type=LoadBalancer" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (eq ($settings.RELAY_STATUS | default "public") "private") (not (hasKey $sources "RELAY_ADMIN_SECRET")) -}}
{{- fail "serviceMonitor.enabled=true with RELAY_STATUS=private needs RELAY_ADMIN_SECRET in settings or settingsFromSecrets, for Prometheus to send it" -}}
{{- end -}}
{{- end -}}
