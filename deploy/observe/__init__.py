"""What an operator sees and is woken by: Prometheus rules and Grafana dashboards as code, and ``make observe``.

``rules.yaml`` and ``dashboards/*.json`` are written by ``make dashboards`` from the modules
here, and a test holds them in step. They are plain files, as Prometheus and Grafana read them; a chart copies
them as they are: ``groups`` of ``rules.yaml`` is the ``spec`` of a PrometheusRule, and each dashboard one key
of a ConfigMap. ``files.installed`` lists them by name with their content.

Two things are asked of whoever scrapes:

* every target carries a label ``component``: ``gateway``, ``visual``, ``audio``, ``fusion`` or ``triton``
  (``files.COMPONENT_LABEL``); several Triton profiles may be ``triton-NAME``. In a PodMonitor or a
  ServiceMonitor that is one relabeling of ``app.kubernetes.io/component``.
* releases in one cluster differ by the label ``namespace``, which the Prometheus operator sets by itself.
"""
