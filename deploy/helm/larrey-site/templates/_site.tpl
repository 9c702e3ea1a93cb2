{{/* What only a site's pod needs: proxy variables, resources with a GPU, the only way out. */}}

{{/* Both cases, because libraries differ in which they read; loopback never goes to a proxy. */}}
{{- define "larrey.proxyEnv" -}}
{{- $proxy := .Values.proxy -}}
{{- if and $proxy.url $proxy.existingSecret -}}
{{- fail "proxy.url and proxy.existingSecret are both set: choose one" -}}
{{- end -}}
{{- if ne (not (or $proxy.url $proxy.existingSecret)) (not $proxy.endpoints) -}}
{{- fail "a proxy needs both its URL (proxy.url or proxy.existingSecret) and its addresses (proxy.endpoints)" -}}
{{- end -}}
{{- if $proxy.endpoints -}}
{{- range list "https_proxy" "HTTPS_PROXY" }}
- name: {{ . }}
  {{- if $proxy.url }}
  value: {{ $proxy.url | quote }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $proxy.existingSecret }}
      key: url
  {{- end }}
{{- end }}
{{- range list "no_proxy" "NO_PROXY" }}
- name: {{ . }}
  value: "localhost,127.0.0.1,::1"
{{- end }}
{{- end -}}
{{- end }}

{{- define "larrey.siteResources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $_ := set $resources.limits .Values.gpu.resource .Values.gpu.count -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{- define "larrey.endpoint" -}}
- to:
    - ipBlock:
        cidr: {{ .cidr }}
  ports:
    - protocol: TCP
      port: {{ .port }}
{{- end }}
