{{/*
The settings of a service: those that wire it (as wiring() in deploy/topology.py does; a test holds them equal), those
that the chart decides, and the operator's. Takes a dict: root, name, component, values. Answers YAML: setting to text.
*/}}
{{- define "bonafide.settings" -}}
{{- $root := .root -}}
{{- $topology := include "bonafide.topology" $root | fromJson -}}
{{- $values := .values -}}
{{- $encrypted := ne $root.Values.tls.mode "off" -}}
{{- $settings := dict
  "LISTEN" (printf "0.0.0.0:%v" .component.port)
  "HEALTH_LISTEN" (printf "0.0.0.0:%v" $topology.health)
  "METRICS_LISTEN" (printf "0.0.0.0:%v" $topology.metrics)
  "MODEL_REPOSITORY" "/models"
  "ROLLOUT_FILE" "/rollout/rollout.json"
  "DRAIN_NOTICE_SECONDS" (toString $root.Values.drainNoticeSeconds)
  "DRAIN_SECONDS" (toString $values.drainSeconds) -}}
{{- range $setting, $peer := .component.peers -}}
{{- $_ := set $settings $setting (include "bonafide.address" (dict "root" $root "name" $peer "port" (get $topology.components $peer).port)) -}}
{{- end -}}
{{- if .component.runsModels -}}
{{- $profile := $values.tritonProfile -}}
{{- $_ := required (printf "%s.tritonProfile: there is no triton.profiles.%s" .name $profile) (get $root.Values.triton.profiles $profile) -}}
{{- $_ := set $settings "ENGINE" "triton" -}}
{{- $_ := set $settings "TRITON_SHARED_REGIONS" "0" -}}{{- /* pods have no /dev/shm in common */ -}}
{{- $_ := set $settings "TRITON_ADDRESS" (include "bonafide.address" (dict "root" $root "name" (printf "triton-%s" $profile) "port" $topology.triton.grpc)) -}}
{{- end -}}
{{- if $encrypted -}}
{{- $_ := set $settings "TLS_CERTIFICATE" "/tls/tls.crt" -}}
{{- $_ := set $settings "TLS_KEY" "/tls/tls.key" -}}
{{- if .component.runsModels -}}
{{- $_ := set $settings "TLS_AUTHORITIES" "/tls/ca.crt" -}}
{{- $_ := set $settings "ALLOWED_PEERS" (list (include "bonafide.identity" (dict "root" $root "name" "gateway")) | toJson) -}}
{{- $_ := set $settings "TRITON_AUTHORITIES" "/tls/ca.crt" -}}
{{- $_ := set $settings "TRITON_CERTIFICATE" "/tls/tls.crt" -}}
{{- $_ := set $settings "TRITON_KEY" "/tls/tls.key" -}}
{{- else -}}
{{- $_ := set $settings "PEER_AUTHORITIES" "/tls/ca.crt" -}}
{{- $_ := set $settings "PEER_CERTIFICATE" "/tls/tls.crt" -}}
{{- $_ := set $settings "PEER_KEY" "/tls/tls.key" -}}
{{- if $root.Values.tls.callers.secret -}}
{{- $_ := set $settings "TLS_CERTIFICATE" "/tls-callers/tls.crt" -}}
{{- $_ := set $settings "TLS_KEY" "/tls-callers/tls.key" -}}
{{- end -}}
{{- if $root.Values.tls.callers.mutual -}}
{{- $_ := set $settings "TLS_AUTHORITIES" (ternary "/tls-callers/ca.crt" "/tls/ca.crt" (ne $root.Values.tls.callers.secret "")) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- $_ := set $settings "ALLOW_PLAINTEXT" "true" -}}
{{- end -}}
{{- $_ := set $settings "LOG_FORMAT" $root.Values.logFormat -}}
{{- $settings = merge $settings (include "bonafide.tracingSettings" $root | fromYaml) -}}
{{- if eq .name "gateway" -}}
{{- $_ := set $settings "SPOOL_DIRECTORY" "/spool" -}}
{{- if $values.access.apiKeysSecret -}}
{{- $_ := set $settings "API_KEYS" "/api-keys/keys" -}}
{{- end -}}
{{- end -}}
{{- if $values.policies -}}
{{- $_ := set $settings "POLICIES" "/policies" -}}
{{- end -}}
{{- range $setting, $value := $values.settings -}}
{{- /* numbers of values files are floats to helm: whole ones are written whole */ -}}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) -}}
{{- $_ := set $settings (upper $setting) (printf "%.0f" $value) -}}
{{- else -}}
{{- $_ := set $settings (upper $setting) (ternary (toString $value) (toJson $value) (kindIs "string" $value)) -}}
{{- end -}}
{{- end -}}
{{- /* Without credentials of callers, the network policies alone decide who may call: say so to the gateway. */ -}}
{{- if not (or .component.runsModels $settings.TLS_AUTHORITIES $settings.API_KEYS $settings.TOKEN_KEYS $settings.ALLOW_ANONYMOUS) -}}
{{- $_ := set $settings "ALLOW_ANONYMOUS" "true" -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}
