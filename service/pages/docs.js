// The OpenAPI document is beside the page. Tags stay closed: a page with every route open is slow to draw.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  // The validator's badge would be fetched from its publisher's host.
  validatorUrl: null,
});
